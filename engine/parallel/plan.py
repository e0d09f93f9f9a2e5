"""What the ranks of one engine build: the plan goes to all, each builds its own part."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from engine.drafters.base import Drafter, DrafterContext
from engine.drafters.model_drafter import ModelDrafter
from engine.models import LoadedModel
from engine.parallel.asked import Loader
from engine.parallel.construct import SharedDrafter
from engine.parallel.drafting import DraftSide
from engine.parallel.lookahead import LookaheadDrafter
from engine.parallel.place import Place
from engine.parallel.placement import Layout
from engine.parallel.scoring import NotedDraft, SharedPart, SharedTarget
from engine.parallel.tensor_parallel import cut
from engine.parts import Uses
from engine.registry import METHODS
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.selfcheck import check_tree_attention
from engine.tree import Children


class Slots(NamedTuple):
    """Room of a runner."""

    num_slots: int
    capacity: int
    max_tree: int
    use_cache: bool


class FarTarget(NamedTuple):
    """What a drafter may ask of a target that is on other ranks: how it reads, not what it says."""

    loaded: LoadedModel | None  # without a model


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """One draft model, where it is, and how it drafts."""

    ranks: tuple[int, ...]
    load: Loader
    slots: Slots
    compiled: bool
    method: str
    options: Any
    most_children: int  # under one node of a tree that ranks draft together; 0: they do not
    sampling: Sampling
    children: Children
    with_replacement: bool
    vocab_size: int
    look_ahead: bool
    target: FarTarget

    def runner(self, place: Place) -> TreeRunner:
        """The draft model with its cache, on this rank."""
        loaded = place.model(("draft", self.load), lambda: self.load(place.device))
        check_tree_attention(loaded)
        forward = None
        if self.compiled:
            from engine.compiled import forward_for

            forward = forward_for(loaded, self.slots.num_slots, lambda *_: None)
        how = self.slots._asdict() | {"forward": forward}
        if self.most_children:  # its drafter notes
            return TreeRunner(loaded, **how)
        return NotedDraft(loaded, lanes=place.lanes, **how)

    def side(self, place: Place, runner: TreeRunner) -> DraftSide:
        """This rank's drafter."""
        context = DrafterContext(
            sampling=self.sampling,
            children=self.children,
            with_replacement=self.with_replacement,
            draft=runner,
            target=cast(TreeRunner, self.target),
            vocab_size=self.vocab_size,
        )
        drafter: Drafter = METHODS[self.method].build(self.options, context)
        if self.most_children:
            assert isinstance(drafter, ModelDrafter), self.method
            kind = LookaheadDrafter if self.look_ahead else SharedDrafter
            drafter = kind(
                drafter.grow,
                self.options,
                context,
                exchange=place.exchange(self.ranks),
                most_children=self.most_children,
                lanes=place.lanes,
            )
        return DraftSide(drafter, place, self.sampling, self.vocab_size)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """The target, where it is cut over several ranks."""

    load: Loader
    slots: Slots
    uses: bytes  # what a method takes from its inside, by `packed`
    forget: tuple[Any, ...] = ()  # shares of others that are to be let go of first

    def loaded(self, place: Place, ranks: tuple[int, ...]) -> LoadedModel:
        """This rank's share of it. All `ranks` must ask at once."""
        key = (self.load, ranks)
        if key not in place.targets:
            place.targets[key] = cut(self.load("cpu"), place.mesh(ranks), place.device)
        check_tree_attention(place.targets[key])
        return place.targets[key]

    def runners(
        self, place: Place, ranks: tuple[int, ...]
    ) -> tuple[SharedTarget, SharedPart | None]:
        """This rank's runner of the target, and that of the part that drafts, where one does."""
        uses = unpacked(self.uses, place.device)
        target = SharedTarget(
            self.loaded(place, ranks), **self.slots._asdict(), lanes=place.lanes, uses=uses
        )
        if uses.draft is None:
            return target, None
        return target, SharedPart(target, uses.draft, lanes=place.lanes)


def packed(uses: Uses) -> bytes:
    """For another process. Pickled here: a pipe of torch's would share a graft's weights with
    children of this process only.
    """
    graft = uses.draft.graft if uses.draft is not None else None
    if graft is not None:
        assert uses.draft is not None
        here = cast(Any, deepcopy(graft)).to("cpu")
        uses = replace(uses, draft=replace(uses.draft, graft=here))
    return pickle.dumps(uses)


def unpacked(packed: bytes, device: str) -> Uses:
    """What `packed` made of it, a graft on `device`."""
    uses: Uses = pickle.loads(packed)
    if uses.draft is not None and uses.draft.graft is not None:
        cast(Any, uses.draft.graft).to(device)
    return uses


@dataclass(frozen=True, slots=True)
class Plan:
    """Who holds what, and what that is. What is not there rank 0 sees to as without ranks."""

    layout: Layout
    target: TargetPlan | None
    drafts: Mapping[int, DraftPlan] = field(default_factory=dict)  # by number of the draft model

    def meet(self, place: Place) -> None:
        """Make the groups of these ranks; every rank of the process group has part in that."""
        if self.target is not None:
            for key in self.target.forget:
                place.targets.pop(key, None)
            place.mesh(self.layout.target)
        for draft in self.drafts.values():
            place.exchange(draft.ranks)

    def build(self, place: Place) -> Part:
        """What a rank other than 0 keeps."""
        self.meet(place)
        target = inside = None
        if self.target is not None and place.rank in self.layout.target:
            target, inside = self.target.runners(place, self.layout.target)
        drafts = {
            at: draft.side(place, draft.runner(place))
            for at, draft in self.drafts.items()
            if place.rank in draft.ranks
        }
        return Part(target, inside, drafts)


class Part:
    """One engine's share on one rank, as rank 0 commands it."""

    def __init__(
        self,
        target: SharedTarget | None,
        inside: SharedPart | None,
        drafts: Mapping[int, DraftSide],
    ) -> None:
        self._target, self._inside, self._drafts = target, inside, drafts

    def target(self, name: str, *arguments: Any) -> None:
        """What the target's runner does on all its ranks."""
        getattr(self._target, name)(*arguments)

    def inside(self, name: str, *arguments: Any) -> None:
        """What the part of the target that drafts does on all its ranks."""
        getattr(self._inside, name)(*arguments)

    def draft(self, at: int, name: str, *arguments: Any) -> Any:
        """What the drafter of draft model `at` does on all its ranks."""
        return getattr(self._drafts[at], name)(*arguments)

    def idle(self) -> None:
        """Nothing is asked for just now."""
        for draft in self._drafts.values():
            draft.idle()
