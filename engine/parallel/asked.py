"""What is asked of several ranks, and what of an engine must be known to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from engine.models import LoadedModel, load_model
from engine.parallel.placement import Divided, Placement
from engine.parts import Uses
from engine.sampling import Sampling
from engine.tree import Children


class Loader(Protocol):
    """Loads a model on a device. It is sent to other processes, so it must be picklable."""

    def __call__(self, device: str) -> LoadedModel: ...


class FromFolder(NamedTuple):
    """Loads what `load_model` loads."""

    path: str
    dtype: str

    def __call__(self, device: str) -> LoadedModel:
        return load_model(self.path, dtype=self.dtype, device=device)


@dataclass(frozen=True, slots=True)
class RanksConfig:
    """How an engine uses several ranks. Loaders stand for the models' own folders (for tests)."""

    num_ranks: int
    divided: Divided = "draft"
    placement: Placement = "beside"
    look_ahead: bool = True
    threads: int = 1  # of torch, per rank
    load_target: Loader | None = None
    load_drafts: tuple[Loader, ...] = ()

    def loader_of(self, loaded: LoadedModel, draft: int | None = None) -> Loader:
        """How ranks load the target, or a draft model by its number."""
        given = self.load_target
        if draft is not None:
            given = self.load_drafts[draft] if self.load_drafts else None
        return given or FromFolder(loaded.path, loaded.dtype)


class Parts(NamedTuple):
    """What `build_engine` has found out before ranks are asked for."""

    method: str
    options: Any
    target: LoadedModel
    drafts: list[LoadedModel]
    max_nodes: int  # of a tree, its root included
    max_draft_rows: int  # of a tree
    sampling: Sampling
    children: Children
    with_replacement: bool
    execution: str
    uses: Uses = Uses()
