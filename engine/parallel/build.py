"""Rank 0's side of one engine on several ranks: its layout, its target, its drafter, its lanes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.errors import UserError
from engine.forward import Forward
from engine.models import LoadedModel
from engine.parallel.drafting import ParallelDrafter
from engine.parallel.group import Group, group_of
from engine.parallel.measuring import MEASURED_PREFIX, step_times
from engine.parallel.needs import DIVISIBLE, why_not_divided
from engine.parallel.placement import Divided, Layout, PassTimes, Placement, layout_of
from engine.parallel.plan import DraftPlan, FromFolder, Loader, Plan, Slots, TargetPlan
from engine.parallel.scoring import NotedDraft, SharedTarget
from engine.parallel.tensor_parallel import degrees, why_not_cut
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.serving.trace import LaneRow
from engine.tree import Children

#: targets cut over ranks that are kept beside the one in use
_OTHER_TARGETS = 1


@dataclass(frozen=True, slots=True)
class RanksConfig:
    """How an engine uses several ranks. Loaders stand for the models' own folders (for tests)."""

    num_ranks: int
    divided: Divided = "draft"
    placement: Placement = "beside"
    look_ahead: bool = True
    threads: int = 1  # of torch, per rank
    load_target: Loader | None = None
    load_draft: Loader | None = None


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


class Parallel:
    """One engine's ranks. `close` lets go of them; they wait for the next engine."""

    def __init__(self, config: RanksConfig, parts: Parts, layout: Layout, group: Group) -> None:
        self.config, self.layout = config, layout
        self._parts, self._group, self._key = parts, group, group.new_key()
        group.users[self._key] = self
        self._target: SharedTarget | None = None
        self._side: Any = None
        self._closed = False

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
        }

    @property
    def looks_ahead(self) -> bool:
        """Whether the draft goes on while the target scores: it must be on one rank of its own."""
        alone = self.layout.overlaps and len(self.layout.draft) == 1
        return self.config.look_ahead and alone

    @property
    def extra_rows(self) -> int:
        """Rows of the draft cache beside those of a tree: for the one that may come next."""
        return self._parts.max_draft_rows + 2 if self.looks_ahead else 0

    @property
    def drafts_here(self) -> bool:
        """Whether rank 0 drafts too."""
        return 0 in self.layout.draft

    @property
    def shares_target(self) -> bool:
        """Whether the target is cut over ranks."""
        return len(self.layout.target) > 1

    @property
    def shares_draft(self) -> bool:
        """Whether trees are drafted by ranks: by several, or by others than rank 0."""
        return self.layout.draft != (0,)

    def draft_runner(self, loaded: LoadedModel, **how: Any) -> TreeRunner:
        """Rank 0's runner of the draft model; a drafter on several ranks notes its own passes."""
        if self.shares_draft:
            return TreeRunner(loaded, **how)
        return NotedDraft(loaded, lanes=self._group.place.lanes, **how)

    # -- parts ---------------------------------------------------------------------------------

    def set_up(
        self,
        draft: TreeRunner | None,
        *,
        target_room: dict[str, Any],
        draft_room: dict[str, Any],
        target_forward: Forward | None,
        mode: str,
    ) -> tuple[SharedTarget, ParallelDrafter | None]:
        """The target's runner; the drafter too, unless rank 0 drafts by itself.

        `draft` is rank 0's runner of the draft model, where it drafts with others; rooms are what
        a `TreeRunner` takes.
        Their counterparts are built on the other ranks meanwhile. Raises UserError.
        """
        group, place = self._group, self._group.place
        plan = self._plan(Slots(**target_room), Slots(**draft_room), compiled=mode == "compiled")
        for rank in range(1, group.num_ranks):
            group.tell(rank, "setup", self._key, plan)
        with group.guarded():
            plan.meet(place)
            loaded, tell = self._parts.target, None
            if plan.target is not None:
                loaded, tell = plan.target.loaded(place, self.layout.target), self._tell_target
            runner = self._target = SharedTarget(
                loaded,
                **target_room,
                forward=target_forward,
                lanes=place.lanes,
                tell=tell,
                guarded=group.guarded,
            )
        if plan.draft is not None and self.drafts_here:
            assert draft is not None
            self._side = plan.draft.side(place, draft, self.layout.draft)
        for rank in range(1, group.num_ranks):
            group.receive(rank)
        if plan.draft is None:
            return runner, None
        return runner, ParallelDrafter(
            self,
            self._side,
            children=self._parts.children,
            step=lambda: runner.num_passes,
            guarded=group.guarded,
            place=place,
        )

    def _plan(self, target_slots: Slots, draft_slots: Slots, *, compiled: bool) -> Plan:
        parts = self._parts
        target = draft = None
        if self.shares_target:
            load = self.config.load_target or FromFolder(parts.target.path, parts.target.dtype)
            kept = [one for one in self._group.place.targets if one != (load, self.layout.target)]
            target = TargetPlan(load, target_slots, forget=tuple(kept[:-_OTHER_TARGETS]))
        if self.shares_draft:
            model = parts.drafts[0]
            draft = DraftPlan(
                load=self.config.load_draft or FromFolder(model.path, model.dtype),
                slots=draft_slots,
                compiled=compiled,
                method=parts.method,
                options=parts.options,
                most_children=DIVISIBLE[parts.method].most_children(parts.options),
                sampling=parts.sampling,
                children=parts.children,
                with_replacement=parts.with_replacement,
                vocab_size=parts.target.vocab_size,
                look_ahead=self.looks_ahead,
            )
        return Plan(self.layout, target, draft)

    # -- commands ------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any) -> None:
        """Have the drafting ranks but this one do something."""
        self._group.call(self.layout.draft, self._key, "draft", name, *arguments)

    def answer(self, name: str, *arguments: Any) -> Any:
        """Have all drafting ranks do something, and wait for what the first of them says."""
        first, *others = self.layout.draft
        self._group.tell(first, "call", self._key, "draft", (name, *arguments), True)
        self._group.call(others, self._key, "draft", name, *arguments)
        return self._group.receive(first, patient=False)

    def _tell_target(self, name: str, arguments: tuple[Any, ...]) -> None:
        self._group.call(self.layout.target, self._key, "target", name, *arguments)

    # -- lanes and the end ---------------------------------------------------------------------

    def take_lanes(self) -> list[LaneRow]:
        """What all ranks noted since this was last asked, on rank 0's clock."""
        return self._group.take_lanes()

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


def start(config: RanksConfig, parts: Parts) -> Parallel:
    """Ranks for one engine, started where they are not there yet.

    Raises UserError for what cannot be divided so; nothing is started then.
    """
    if config.divided != "target" or config.placement != "beside":
        if not parts.drafts:
            raise UserError(
                f"{parts.method} has no draft model to divide; use --parallel target, which cuts "
                "the target over the ranks."
            )
        reason = why_not_divided(parts.method, parts.options, num_drafts=len(parts.drafts))
        if reason:
            raise UserError(reason)
    times, possible = _measured(config, parts)
    layout = layout_of(
        config.num_ranks,
        divided=config.divided,
        placement=config.placement,
        times=times,
        degrees=possible,
    )
    reason = why_not_cut(parts.target, len(layout.target))
    if reason:
        raise UserError(reason)
    for loaded, load in ((parts.target, config.load_target), *(
        (draft, config.load_draft) for draft in parts.drafts[:1])):  # fmt: skip
        if load is None and not loaded.path:
            raise UserError(f"{loaded.name} was not loaded from a folder; ranks cannot load it.")
    if len(layout.target) > 1 and parts.execution not in ("auto", "eager"):
        raise UserError(
            f"A target that is cut over ranks runs eager; --execution {parts.execution} is for"
            " ranks that hold it whole."
        )
    _check_devices(config.num_ranks, parts.target.device)
    group = group_of(config.num_ranks, device=parts.target.device, threads=config.threads)
    return Parallel(config, parts, layout, group)


def _measured(config: RanksConfig, parts: Parts) -> tuple[PassTimes | None, list[int]]:
    if config.placement != "split" or config.num_ranks == 1:
        return None, []
    levels = max(1, DIVISIBLE[parts.method].levels(parts.options))
    rows = max(parts.max_nodes, parts.max_draft_rows)
    target, draft = (
        TreeRunner(one, num_slots=1, capacity=MEASURED_PREFIX, max_tree=rows)
        for one in (parts.target, parts.drafts[0])
    )
    times = step_times(
        target,
        draft,
        nodes=parts.max_nodes,
        rows=parts.max_draft_rows,
        levels=levels,
    )
    return times, degrees(parts.target, config.num_ranks)


def _check_devices(num_ranks: int, device: str) -> None:
    import torch

    if not device.startswith("cuda"):
        return
    first = int(device.partition(":")[2] or 0)
    there = torch.cuda.device_count()
    if first + num_ranks > there:
        raise UserError(
            f"{num_ranks} ranks need a GPU each, from {device} on, and torch sees {there}; lower "
            "--ranks, or use --device cpu."
        )
