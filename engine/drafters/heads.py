"""Which trained head a method drafts with: the one named, or the one made for the target."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.errors import UserError
from engine.heads.files import CARD, find_head, load_head, read_card, resolve_head
from engine.models import LoadedModel
from engine.options import option


class Head(NamedTuple):
    """A head ready to draft."""

    module: Any
    #: what head.json says of it; empty for a checkpoint in its authors' layout
    card: dict[str, Any]


def head_option(plural: str) -> Any:
    """The option that names one; `plural` says what they are called."""
    return option(
        "",
        f"{plural} by name or folder; empty: the embedded one made for the target",
        tune=False,
    )


def head_for(kind: str, wanted: str, target: LoadedModel) -> Head:
    """The head `wanted`, by name or folder; empty: the embedded one made for `target`.

    Raises UserError where there is none, or it does not fit.
    """
    if wanted:
        folder = resolve_head(wanted)
    elif (found := find_head(kind, target)) is not None:
        folder = found
    else:
        raise UserError(
            f"There is no embedded {kind} head for {target.name}. Train one with `draftree train"
            f" {kind} --target {target.path or target.name} --text FILES`, and name its folder with"
            " the option head."
        )
    module = load_head(str(folder), target, kind=kind)
    return Head(module, read_card(folder) if (folder / CARD).is_file() else {})
