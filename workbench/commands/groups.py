"""Options in groups: dataclasses whose fields are flags, so that commands share and read them.

A group is declared once, with the panel of `--help` that its flags stand in:

    @dataclass(frozen=True)
    class Sampling(Flags, panel="Sampling"):
        top_k: Annotated[int, typer.Option(help="0 is off.")] = 0

A command takes it as a parameter, `sampling: Sampling`, and typer sees its fields. A flag that
names a panel itself stands in that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, ClassVar, get_args, get_type_hints


@dataclass(frozen=True)
class Flags:
    """Base of groups. Their fields are `Annotated` with a typer.Option, and have defaults."""

    panel: ClassVar[str | None] = None

    def __init_subclass__(cls, panel: str | None = None) -> None:
        if panel is not None:
            cls.panel = panel


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it: fields in place of each group, in the order of parameters."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, Flags)
    }
    options: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            options += _options(groups[name])
        else:
            options.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @wraps(command)
    def typed(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
        command(**values)

    typed.__signature__ = Signature(options)  # type: ignore[attr-defined]
    return typed


def _options(group: type[Flags]) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, option = get_args(hints[field.name])
        option = copy(option)
        option.rich_help_panel = option.rich_help_panel or group.panel
        yield Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[kind, option],
        )
