"""Rank 0's side of one engine on several ranks: its target, its drafters, its lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from engine.drafters.base import Drafter
from engine.drafters.merged import Merged
from engine.errors import UserError
from engine.forward import Forward
from engine.models import LoadedModel
from engine.parallel.asked import Parts, RanksConfig
from engine.parallel.drafting import MergedOnRanks, ParallelDrafter
from engine.parallel.group import Group
from engine.parallel.needs import DIVISIBLE, note_of, why_whole
from engine.parallel.placement import Layout
from engine.parallel.plan import DraftPlan, FarTarget, Plan, Slots, TargetPlan, packed
from engine.parallel.scoring import NotedDraft, SharedPart, SharedTarget, Tell
from engine.runner import TreeRunner
from engine.serving.trace import LaneRow

#: targets cut over ranks that are kept beside the one in use
_OTHER_TARGETS = 1


class Built(NamedTuple):
    """Rank 0's side of an engine."""

    target: SharedTarget
    inside: SharedPart | None  # the part of the target that drafts
    drafters: list[ParallelDrafter | None]  # by draft model; None: rank 0 drafts by itself


class Parallel:
    """One engine's ranks. `close` lets go of them; they wait for the next engine."""

    def __init__(self, config: RanksConfig, parts: Parts, layout: Layout, group: Group) -> None:
        self.config, self.layout = config, layout
        self._parts, self._group, self._key = parts, group, group.new_key()
        group.users[self._key] = self
        self._target: SharedTarget | None = None
        self._closed = False
        #: ranks of each draft model: all that draft, or one of them where models are several
        self._draft_ranks = [layout.draft] * len(parts.drafts)
        if len(parts.drafts) > 1:
            on = layout.draft
            self._draft_ranks = [(on[at % len(on)],) for at in range(len(parts.drafts))]

    @property
    def description(self) -> dict[str, Any]:
        """What a run keeps of it, as JSON values."""
        return {
            "ranks": self.config.num_ranks,
            "parallel": self.config.divided,
            "placement": self.config.placement,
            "target": list(self.layout.target),
            "draft": list(self.layout.draft),
            "threads": self._group.threads,
            "look_ahead": self.looks_ahead,
            "note": self.note,
        }

    @property
    def note(self) -> str:
        """What people should know of how ranks were used; empty where all was done as asked."""
        return note_of(
            self._parts.method,
            self._parts.options,
            num_drafts=len(self._parts.drafts),
            divided=self.config.divided,
            layout=self.layout,
            num_ranks=self.config.num_ranks,
        )

    @property
    def looks_ahead(self) -> bool:
        """Whether the draft goes on while the target scores: it must be on one rank of its own."""
        alone = self.layout.overlaps and len(self.layout.draft) == 1
        return self.config.look_ahead and alone and self.divides

    @property
    def extra_rows(self) -> int:
        """Rows of the draft cache beside those of a tree: for the one that may come next."""
        return self._parts.max_draft_rows + 2 if self.looks_ahead else 0

    @property
    def divides(self) -> bool:
        """Whether the method's trees can be drafted by several ranks together."""
        drafts = len(self._parts.drafts)
        return drafts == 1 and not why_whole(
            self._parts.method, self._parts.options, num_drafts=drafts
        )

    @property
    def shares_target(self) -> bool:
        """Whether the target is cut over ranks."""
        return len(self.layout.target) > 1

    def draft_runner(self, at: int, loaded: LoadedModel, **how: Any) -> TreeRunner | None:
        """Rank 0's runner of draft model `at`; None where others have it.

        A drafter on several ranks notes its own passes.
        """
        if 0 not in self._draft_ranks[at]:
            return None
        if len(self._draft_ranks[at]) > 1:
            return TreeRunner(loaded, **how)
        return NotedDraft(loaded, lanes=self._group.place.lanes, **how)

    def merged(self, drafters: Sequence[Drafter]) -> Merged:
        """Drafters of several draft models as one."""
        return MergedOnRanks(drafters)

    # -- parts ---------------------------------------------------------------------------------

    def set_up(
        self,
        drafts: Sequence[TreeRunner | None],
        *,
        target_room: dict[str, Any],
        draft_room: dict[str, Any],
        target_forward: Forward | None,
        mode: str,
    ) -> Built:
        """Runners of the target and drafters of what others draft.

        `drafts` are rank 0's runners of the draft models; rooms are what a `TreeRunner` takes.
        Their counterparts are built on the other ranks meanwhile. Raises UserError.
        """
        group, place = self._group, self._group.place
        plan = self._plan(Slots(**target_room), Slots(**draft_room), compiled=mode == "compiled")
        for rank in range(1, group.num_ranks):
            group.tell(rank, "setup", self._key, plan)
        with group.guarded():
            plan.meet(place)
            target, inside = self._runners(plan.target, target_room, target_forward)
        self._target = target
        drafters: list[ParallelDrafter | None] = [None] * len(drafts)
        for at, draft in plan.drafts.items():
            runner = drafts[at]
            drafters[at] = ParallelDrafter(
                _DraftRanks(group, self._key, at, draft.ranks),
                None if runner is None else draft.side(place, runner),
                children=self._parts.children,
                step=lambda: target.num_passes,
                guarded=group.guarded,
                place=place,
            )
        refusals = []
        for rank in range(1, group.num_ranks):  # all are heard: what is left would answer for later
            try:
                group.receive(rank)
            except UserError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]
        return Built(target, inside, drafters)

    def _runners(
        self, plan: TargetPlan | None, room: dict[str, Any], forward: Forward | None
    ) -> tuple[SharedTarget, SharedPart | None]:
        """The target's, and that of its part that drafts, where one does."""
        group, whole, uses = self._group, self._parts.target, self._parts.uses
        place, ranks = group.place, self.layout.target
        how: dict[str, Any] = {"lanes": place.lanes, "guarded": group.guarded}
        if plan is None:
            return SharedTarget(whole, **room, forward=forward, **how), None

        def telling(part: str) -> Tell:
            return lambda name, values: group.call(ranks, self._key, part, name, *values)

        target = SharedTarget(
            plan.loaded(place, ranks),
            **room,
            forward=forward,
            whole=whole,
            uses=uses,
            tell=telling("target"),
            **how,
        )
        if uses.draft is None:
            return target, None
        return target, SharedPart(target, uses.draft, tell=telling("inside"), **how)

    def _plan(self, target_slots: Slots, draft_slots: Slots, *, compiled: bool) -> Plan:
        parts = self._parts
        target = None
        if self.shares_target:
            load = self.config.loader_of(parts.target)
            kept = [one for one in self._group.place.targets if one != (load, self.layout.target)]
            forget = tuple(kept[:-_OTHER_TARGETS])
            target = TargetPlan(load, target_slots, packed(parts.uses), forget)
        drafts = {
            at: DraftPlan(
                ranks=ranks,
                load=self.config.loader_of(parts.drafts[at], at),
                slots=draft_slots,
                compiled=compiled,
                method=parts.method,
                options=parts.options,
                most_children=self._most_children,
                sampling=parts.sampling,
                children=parts.children,
                with_replacement=parts.with_replacement,
                vocab_size=parts.target.vocab_size,
                look_ahead=self.looks_ahead,
                target=self._far_target,
            )
            for at, ranks in enumerate(self._draft_ranks)
            if ranks != (0,)
        }
        return Plan(self.layout, target, drafts)

    @property
    def _most_children(self) -> int:
        """Of a node of a tree that ranks draft together; 0 where they do not."""
        if not self.divides:
            return 0
        return DIVISIBLE[self._parts.method].most_children(self._parts.options)

    @property
    def _far_target(self) -> FarTarget:
        """What is known of the target where drafting is not divided; others ask for nothing."""
        loaded = self._parts.target
        return FarTarget(None if self.divides else replace(loaded, model=cast(Any, None)))

    # -- lanes and the end ---------------------------------------------------------------------

    def take_lanes(self) -> list[LaneRow]:
        """What all ranks noted since this was last asked, on rank 0's clock.

        Nothing more where a rank was lost.
        """
        return [] if self._group.broken else self._group.take_lanes()

    def begin_lanes(self) -> None:
        """Forget what was noted so far, and count steps from 0."""
        self.take_lanes()
        if self._target is not None:
            self._target.restart()

    def close(self) -> None:
        """This engine needs its ranks no more."""
        if self._closed:
            return
        self._closed = True
        if not self._group.broken:
            self._group.drop(self._key)


class _DraftRanks:
    """The ranks of one draft model, as rank 0 commands them."""

    def __init__(self, group: Group, key: int, at: int, ranks: tuple[int, ...]) -> None:
        self._group, self._key, self._at, self._ranks = group, key, at, ranks

    def call(self, name: str, *arguments: Any) -> None:
        self._group.call(self._ranks, self._key, "draft", self._at, name, *arguments)

    def ask(self, name: str, *arguments: Any) -> None:
        first, *others = self._ranks
        self._group.tell(first, "call", self._key, "draft", (self._at, name, *arguments), True)
        self._group.call(others, self._key, "draft", self._at, name, *arguments)

    def answer(self) -> Any:
        return self._group.receive(self._ranks[0], patient=False)
