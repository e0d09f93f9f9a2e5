"""What the ranks of one engine build: the plan goes to all, each builds its own part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from engine.drafters.base import DrafterContext
from engine.drafters.model_drafter import ModelDrafter
from engine.models import LoadedModel, load_model
from engine.parallel.construct import SharedDrafter
from engine.parallel.drafting import DraftSide
from engine.parallel.lookahead import LookaheadDrafter
from engine.parallel.place import Place
from engine.parallel.placement import Layout
from engine.parallel.scoring import SharedTarget
from engine.parallel.tensor_parallel import cut
from engine.registry import METHODS
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.selfcheck import check_tree_attention
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


class Slots(NamedTuple):
    """Room of a runner."""

    num_slots: int
    capacity: int
    max_tree: int
    use_cache: bool


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """The draft model and how it drafts."""

    load: Loader
    slots: Slots
    compiled: bool
    method: str
    options: Any
    most_children: int
    sampling: Sampling
    children: Children
    with_replacement: bool
    vocab_size: int
    look_ahead: bool

    def runner(self, place: Place) -> TreeRunner:
        """The draft model with its cache, on this rank."""
        loaded = place.model(("draft", self.load), lambda: self.load(place.device))
        check_tree_attention(loaded)
        forward = None
        if self.compiled:
            from engine.compiled import forward_for

            forward = forward_for(loaded, self.slots.num_slots, lambda *_: None)
        return TreeRunner(loaded, **self.slots._asdict(), forward=forward)

    def side(self, place: Place, runner: TreeRunner, ranks: tuple[int, ...]) -> DraftSide:
        """This rank's drafter, one of those on `ranks`."""
        context = DrafterContext(
            sampling=self.sampling,
            children=self.children,
            with_replacement=self.with_replacement,
            draft=runner,
            target=runner,  # asked only by methods that weigh costs, and those are not divided
            vocab_size=self.vocab_size,
        )
        plain = METHODS[self.method].build(self.options, context)
        assert isinstance(plain, ModelDrafter), self.method
        kind = LookaheadDrafter if self.look_ahead else SharedDrafter
        drafter = kind(
            plain.grow,
            self.options,
            context,
            exchange=place.exchange(ranks),
            most_children=self.most_children,
            lanes=place.lanes,
        )
        return DraftSide(drafter, place, self.sampling, self.vocab_size)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """The target, where it is cut over several ranks."""

    load: Loader
    slots: Slots
    forget: tuple[Any, ...] = ()  # shares of others that are to be let go of first

    def loaded(self, place: Place, ranks: tuple[int, ...]) -> LoadedModel:
        """This rank's share of it. All `ranks` must ask at once."""
        key = (self.load, ranks)
        if key not in place.targets:
            place.targets[key] = cut(self.load("cpu"), place.mesh(ranks), place.device)
        check_tree_attention(place.targets[key])
        return place.targets[key]


@dataclass(frozen=True, slots=True)
class Plan:
    """Who holds what, and what that is. None: rank 0 sees to it as without ranks."""

    layout: Layout
    target: TargetPlan | None
    draft: DraftPlan | None

    def meet(self, place: Place) -> None:
        """Make the groups of these ranks; every rank of the process group has part in that."""
        if self.target is not None:
            for key in self.target.forget:
                place.targets.pop(key, None)
            place.mesh(self.layout.target)
        if self.draft is not None:
            place.exchange(self.layout.draft)

    def build(self, place: Place) -> Part:
        """What a rank other than 0 keeps."""
        self.meet(place)
        target = draft = None
        if self.target is not None and place.rank in self.layout.target:
            loaded = self.target.loaded(place, self.layout.target)
            target = SharedTarget(loaded, **self.target.slots._asdict(), lanes=place.lanes)
        if self.draft is not None and place.rank in self.layout.draft:
            draft = self.draft.side(place, self.draft.runner(place), self.layout.draft)
        return Part(target, draft)


class Part:
    """One engine's share on one rank, as rank 0 commands it."""

    def __init__(self, target: SharedTarget | None, draft: DraftSide | None) -> None:
        self._target, self._draft = target, draft

    def target(self, name: str, *arguments: Any) -> None:
        """What the target's runner does on all its ranks."""
        assert self._target is not None
        getattr(self._target, name)(*arguments)

    def draft(self, name: str, *arguments: Any) -> Any:
        """What the drafter does on all its ranks."""
        assert self._draft is not None
        return getattr(self._draft, name)(*arguments)

    def idle(self) -> None:
        """Nothing is asked for just now."""
        if self._draft is not None:
            self._draft.idle()
