"""One step of a batch as rows: what was scored, how long each stage took, who had what of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.records import StageTimes, StepRecord
from engine.serving.entries import Pair
from engine.serving.trace import ShareRow, Tick, TickRow


def tick_of(
    pair: Pair,
    steps: Sequence[StepRecord],
    *,
    number: int,
    replica: int,
    span_ns: tuple[int, int],
    waiting: int,
    budgets: Mapping[int, int] | None,
) -> Tick:
    """The rows of a step that began and ended at `span_ns`; its requests still have their slots."""
    begin, end = span_ns
    times = steps[0].times if steps else StageTimes()
    draft_ns = times.draft + times.build
    row = TickRow(
        tick=number,
        pair=pair.name,
        replica=replica,
        begin_ns=begin,
        end_ns=end,
        waiting=waiting,
        active=len(steps),
        budget=None if budgets is None else sum(budgets.values()),
        nodes=sum(step.tree.num_drafted for step in steps),
        # passes of all requests run together
        draft_passes=max((step.tree.draft_passes for step in steps), default=0),
        draft_ns=draft_ns,
        score_ns=times.score,
        verify_ns=times.verify,
        commit_ns=times.commit,
        rest_ns=end - begin - draft_ns - times.score - times.verify - times.commit,
    )
    slots = {entry.index: slot for slot, entry in pair.running.items()}
    return Tick(row, [_share(step, slots[step.request]) for step in steps])


def _share(step: StepRecord, slot: int) -> ShareRow:
    tree = step.tree
    return ShareRow(
        request=step.request,
        slot=slot,
        nodes=tree.num_drafted,
        depth=int(tree.depth_M[: tree.num_nodes].max()),
        bid=tree.expected_tokens - 1.0,  # the last token is the target's own
        accepted=step.verdict.num_accepted,
        kept=step.num_kept,
    )
