"""Small trained modules that draft from the target's hidden states; no code that decodes here.

A *kind* of head is one module class here and one objective in `engine/training`; both are imported
when they are needed. The class gives

- `kind`, its name below;
- `sizes() -> dict`: what `build` needs to make an untrained module of the same shape (JSON);
- `build(sizes, target) -> Self` (class method): raises UserError where sizes do not fit the target;
- `read_published(folder, target) -> Self | None` (class method): a checkpoint in the layout its
  authors publish; None where the folder holds no such layout.

Parameters that belong to the target (its LM head, its embeddings) are never registered in the
module, so that a state dict holds what was trained and nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from engine.errors import UserError


class HeadKind(NamedTuple):
    """Where the parts of a kind of head lie, as `module:name`."""

    module: str
    objective: str
    """Called as `objective(target, **options)`; see `engine.training.heads.Objective`."""

    def module_class(self) -> Any:
        """The module's class."""
        return _import(self.module)

    def objective_class(self) -> Any:
        """What trains it."""
        return _import(self.objective)


KINDS = {
    "medusa": HeadKind("engine.heads.medusa:MedusaHeads", "engine.training.medusa:MedusaObjective"),
    "kangaroo": HeadKind(
        "engine.heads.kangaroo:KangarooAdapter", "engine.training.kangaroo:KangarooObjective"
    ),
    "eagle": HeadKind("engine.heads.eagle:EagleHead", "engine.training.eagle:EagleObjective"),
}


def head_kind(name: str) -> HeadKind:
    """Raises UserError for a kind that does not exist."""
    if name not in KINDS:
        raise UserError(f"There is no kind of head {name!r}; there are {', '.join(KINDS)}.")
    return KINDS[name]


def _import(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
