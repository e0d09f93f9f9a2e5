"""Options of a method: frozen dataclasses whose fields document themselves.

They become command-line flags, form fields and report rows without another edit.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from engine.errors import UserError

T = TypeVar("T")
#: what a search varies of an option that names sublayers of the target: whether each is among them
SUBLAYERS: Literal["sublayers"] = "sublayers"
Tune = bool | tuple[str, ...] | Literal["sublayers"]


def option(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    choices: tuple[str, ...] | None = None,
    common: bool = False,
    tune: Tune | None = None,
    where: Mapping[str, tuple[str, ...]] | None = None,
) -> Any:
    """A dataclass field with its documentation and bounds. `common` ones are listed last.

    `tune` says whether a search over the options varies it, by default all but common ones; of
    text, which has no range, it lists what is worth a try. `where` names other options, declared
    before, and the values of theirs under which this one matters.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "min": min,
            "max": max,
            "choices": choices,
            "common": common,
            "tune": not common if tune is None else tune,
            "where": where or {},
        },
    )


class OptionInfo(NamedTuple):
    """What a form or a help text needs to know of an option."""

    name: str
    type: str  # int, float, bool, str
    default: Any
    help: str
    choices: tuple[str, ...] | None
    min: float | None
    max: float | None
    #: whether a search over the options varies it unless told otherwise; of text, what it tries
    tune: Tune = True
    #: values of other options under which this one matters
    where: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def matters(self, values: Mapping[str, Any]) -> bool:
        """Whether it does beside these; options that are not among them do not speak against it."""
        return all(
            values[name] in allowed for name, allowed in self.where.items() if name in values
        )


def describe_options(options_type: type) -> list[OptionInfo]:
    """The fields of an options dataclass, in order, without those that could never matter.

    A method that takes its options from another may take fewer policies, and then some matter to
    none of them.
    """
    hints = typing.get_type_hints(options_type)
    choices = {f.name: f.metadata["choices"] for f in dataclasses.fields(options_type)}
    found = [
        OptionInfo(
            name=f.name,
            type=_plain_type(hints[f.name]).__name__,
            default=f.default,
            help=f.metadata["help"],
            choices=f.metadata["choices"],
            min=f.metadata["min"],
            max=f.metadata["max"],
            tune=f.metadata["tune"],
            where=f.metadata["where"],
        )
        for f in sorted(dataclasses.fields(options_type), key=lambda f: f.metadata["common"])
    ]
    return [
        info
        for info in found
        if all(
            not choices[name] or set(choices[name]) & set(allowed)
            for name, allowed in info.where.items()
        )
    ]


def parse(options_type: type[T], values: dict[str, Any], *, method: str) -> T:
    """Check and convert values (strings from a command line, or plain JSON values).

    Raises UserError naming the option, the value and what is allowed.
    """
    infos = {info.name: info for info in describe_options(options_type)}
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        info = infos.get(name.replace("-", "_"))
        if info is None:
            known = ", ".join(infos) or "none"
            raise UserError(f"{method} has no option {name!r}; it has: {known}.")
        parsed[info.name] = _convert(info, value, method=method)
    return options_type(**parsed)


def _convert(info: OptionInfo, value: Any, *, method: str) -> Any:
    where = f"Option {info.name} of {method}"
    try:
        converted: Any
        if info.type == "bool":
            words = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
            converted = value if isinstance(value, bool) else words[str(value).lower()]
        elif info.type == "int":
            converted = int(str(value))
        elif info.type == "float":
            converted = float(value)
        else:
            converted = str(value)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is {value!r}; it takes {_expected(info)}.") from error
    if info.choices and converted not in info.choices:
        raise UserError(f"{where} is {value!r}; it takes one of {', '.join(info.choices)}.")
    low, high = info.min, info.max
    if (low is not None and not converted >= low) or (high is not None and not converted <= high):
        raise UserError(f"{where} is {converted}; it takes {_expected(info)}.")
    return converted


def _expected(info: OptionInfo) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "on or off", "str": "text"}
    text = words[info.type]
    if info.min is not None and info.max is not None:
        return f"{text} from {info.min:g} to {info.max:g}"
    if info.min is not None:
        return f"{text}, {info.min:g} or more"
    return text


def _plain_type(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None))
    return hint
