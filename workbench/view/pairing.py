"""What the Run page says of a pair and a method before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from engine.errors import UserError
from engine.registry import METHODS
from workbench import discovery
from workbench.discovery import Model

#: by how much two vocabularies of one family may differ in size
_PADDING = 0.05


class Said(NamedTuple):
    """A sentence, and whether it is good news (None: open)."""

    works: bool | None
    sentence: str


def pair_says(method: str, target: str, draft: str | None, known: list[Model]) -> Said | None:
    """Whether `method` can run with this pair; None while there is nothing to say."""
    if not target:
        return None
    try:
        needs_draft = METHODS[method].needs_draft
    except UserError as error:
        return Said(False, str(error))
    ours = discovery.find(target, known)
    if ours is None:
        return Said(None, _elsewhere(target))
    if ours.problem:
        return Said(False, ours.problem)
    if not needs_draft:
        return Said(True, f"{method} drafts without a second model.")
    if not draft:
        return Said(False, f"{method} drafts with a second model; choose one of the same family.")
    theirs = discovery.find(draft, known)
    if theirs is None:
        return Said(None, _elsewhere(draft))
    any_vocabulary = not METHODS[method].same_vocabulary
    found = discovery.fit(ours, theirs, any_vocabulary=any_vocabulary)
    return Said(found.works, found.sentence)


def fitting(target: str, taken: Collection[str], known: list[Model]) -> list[Model]:
    """Models that can draft for `target` beside those `taken`, smaller ones first.

    Only those whose vocabulary has about the target's size are read: families pad theirs.
    """
    ours = discovery.find(target, known)
    if ours is None or ours.problem:
        return []
    return sorted(
        (
            model
            for model in known
            if model.name not in (target, *taken)
            and model.path.resolve() != ours.path.resolve()
            and abs(model.vocab_size - ours.vocab_size) <= _PADDING * ours.vocab_size
            and discovery.fit(ours, model).works is not False
        ),
        key=lambda model: model.num_bytes,
    )


def _elsewhere(name: str) -> str:
    if name.count("/") == 1 and name[0] not in "./~":
        return f"{name} is not on this machine; the run fetches it from the Hugging Face hub."
    return f"There is no model folder {name}; check the path, or choose one from the list."
