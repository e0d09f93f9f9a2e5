"""What passes cost: the time of a pass against its nodes and the context, measured in place.

Sizes are taken in turn, round after round: a machine that is busy for a moment then spoils one
reading of each size instead of all readings of one. Of the readings of a size the lower quartile
counts. What disturbs a pass only ever makes it slower, and long passes more often than short ones;
how disturbed the machine is in use is for engine/pace.py to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from engine.calibration import Calibration
from engine.runner import Nodes, TreeRunner

#: rounds of an engine that measures while it is built, the first of which warms up
_QUICK_ROUNDS = 6
_SIZES = (*range(1, 13), 14, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
_SHORT_CONTEXT = 32
#: children of one root in a pass that shows what lopsided trees cost, and what it costs at least
_LOPSIDED, _LEAST_MS = 5, 1e-6


@dataclass(frozen=True, slots=True)
class PassCost:
    """Milliseconds of one pass by nodes and context; between what was measured linear."""

    nodes_S: tuple[int, ...]
    contexts_C: tuple[int, ...]
    ms_CS: tuple[tuple[float, ...], ...]

    def at(self, context: int, most: int | None = None) -> np.ndarray:
        """Milliseconds of passes over 0, 1, 2, ..., `most` nodes at a context; index 0 is 0.

        Beyond the most nodes measured, along the line from half as many.
        """
        rows = np.asarray(self.ms_CS)
        ms = [float(np.interp(context, self.contexts_C, column)) for column in rows.T]
        last = self.nodes_S[-1]
        counts = np.arange((most or last) + 1)
        found = np.interp(counts, self.nodes_S, _rising(ms))
        if len(counts) > last + 1 and len(ms) > 1:
            half = max(last // 2, self.nodes_S[0])
            slope = (found[last] - found[half]) / max(last - half, 1)
            found[last + 1 :] += slope * (counts[last + 1 :] - last)
        found[0] = 0.0
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the way back."""
        return {"nodes": self.nodes_S, "contexts": self.contexts_C, "ms": self.ms_CS}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> PassCost:
        """Raises KeyError, TypeError or ValueError for what is no table of costs."""
        nodes = tuple(int(count) for count in stored["nodes"])
        contexts = tuple(int(length) for length in stored["contexts"])
        ms = tuple(tuple(float(value) for value in row) for row in stored["ms"])
        fits = len(ms) == len(contexts) > 0 and all(len(row) == len(nodes) > 0 for row in ms)
        if not fits or list(nodes) != sorted(set(nodes)) or list(contexts) != sorted(set(contexts)):
            raise ValueError("rows and columns of the costs do not fit together")
        if not all(0.0 < value < float("inf") for row in ms for value in row):
            raise ValueError("a pass time is not a positive number")
        return cls(nodes, contexts, ms)


def _rising(ms: Sequence[float]) -> list[float]:
    """The nearest times that never fall with the nodes (pool adjacent violators)."""
    pools: list[list[float]] = []  # mean, how many
    for value in ms:
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            before = pools[-1]
            total = before[1] + count
            pools[-1] = [(before[0] * before[1] + mean * count) / total, total]
    return [mean for mean, count in pools for _ in range(int(count))]


class PairCost(NamedTuple):
    """Pass times of both models of a pair."""

    target: PassCost
    draft: PassCost
    #: of several slots: what a target pass takes longer for each node by which the widest tree is
    #: wider than the others, since attention is padded to it; a column for one node
    wider: PassCost | None = None

    def scoring(
        self, context: int, *, slots: int, span: int, most: int
    ) -> tuple[np.ndarray, float]:
        """Milliseconds of a target pass over 0, 1, 2, ..., `most` drafted nodes, and the roots.

        The batch has `slots`, the last one in use is at `span` - 1. No tree has more than one
        drafted node; each by which the widest has more costs the second figure on top.

        A slot costs what there is in it to look at, and a node beside the root hardly more than
        its row. So what further nodes cost is read off where every slot is in use.
        """
        ms = self.target.at(context, slots + most)
        further = ms[slots:] - ms[slots]
        wider = float(self.wider.at(context, 1)[1]) if self.wider and slots > 1 else 0.0
        # as they were measured, evenly over all slots, the trees grow wider too
        even = np.maximum(-(-np.arange(most + 1) // slots), 1) - 1
        further = np.maximum.accumulate(further - wider * even)
        return ms[span] + further, wider * span / slots


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a pair on this machine before it runs."""

    costs: PairCost
    #: acceptance counted in stored runs, by kind (`engine.calibration.kind_of`)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)


class Known(NamedTuple):
    """The profile that fits, or none; `said` tells people which, or why there is none."""

    profile: Profile | None
    said: str


class StoppedError(Exception):
    """Measuring was asked to stop."""


def no_profile(mode: str = "") -> Known:
    """Nobody keeps profiles here."""
    return Known(None, "no profile was given")


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Numbers of nodes that are measured: all small ones, `most` itself, few between."""
    return tuple(sorted({min(size, most) for size in _SIZES if size < 2 * most} | {most}))


def contexts_up_to(room: int, count: int = 2) -> tuple[int, ...]:
    """A short context and a long one, and others evenly between."""
    longest = max(min(room * 3 // 4, 2048), 1)
    shortest = min(_SHORT_CONTEXT, longest)
    return tuple(sorted({int(x) for x in np.linspace(shortest, longest, count)}))


def measure(
    target: TreeRunner,
    draft: TreeRunner,
    *,
    target_nodes: Sequence[int],
    draft_nodes: Sequence[int],
    contexts: Sequence[int],
    rounds: int = _QUICK_ROUNDS,
    on_progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PairCost:
    """Time passes of two free runners (no request under way).

    Of runners with several slots all are filled to the context, and nodes are spread over them:
    a pass is then known by the nodes of all requests together. A target pass has a node of every
    request, so fewer nodes are of the first slots; a draft pass may be of a few requests anywhere,
    and looks at all slots up to the last of them.

    Passes of the draft follow one of the target, as they do in a step: the first of them finds the
    target's weights in the processor's cache. The first round warms up and is not counted.

    Raises StoppedError when asked to stop between passes.
    """
    turns = max(len(target_nodes), len(draft_nodes))
    ms_target = np.full((rounds, len(contexts), turns), np.nan)
    ms_draft = np.full((rounds, len(contexts), turns), np.nan)
    ms_wider = np.full((rounds, len(contexts), 1), np.nan)
    lopsided = min(_LOPSIDED, target.max_tree - 1) if target.num_slots > 1 else 0
    total, done = rounds * len(contexts), 0
    for at, context in enumerate(contexts):
        with _prefixes((target, draft), context):
            for number in range(rounds):
                for turn in range(turns):
                    if should_stop():
                        raise StoppedError
                    size = target_nodes[turn % len(target_nodes)]
                    ms_target[number, at, turn] = _time(target, size)
                    size = draft_nodes[turn % len(draft_nodes)]
                    both = _time(draft, size, anywhere=True) + _time(draft, size, anywhere=True)
                    ms_draft[number, at, turn] = both / 2
                if lopsided > 1:
                    size = target.num_slots + lopsided
                    more = _time(target, size, lopsided=True) - _time(target, size)
                    ms_wider[number, at, 0] = max(more / (lopsided - 1), _LEAST_MS)
                done += 1
                on_progress(done / total)
    return PairCost(
        _undisturbed(ms_target, target_nodes, contexts),
        _undisturbed(ms_draft, draft_nodes, contexts),
        _undisturbed(ms_wider, (1,), contexts, quantile=0.5) if lopsided > 1 else None,
    )


def _undisturbed(
    ms: np.ndarray, nodes: Sequence[int], contexts: Sequence[int], *, quantile: float = 0.25
) -> PassCost:
    """Quartiles over rounds (the first one left out) and over the turns of the same size."""
    counted = ms[1:] if len(ms) > 1 else ms
    rows = []
    for at in range(len(contexts)):
        turns = (counted[:, at, turn :: len(nodes)] for turn in range(len(nodes)))
        rows.append(tuple(float(np.quantile(readings, quantile)) for readings in turns))
    return PassCost(tuple(nodes), tuple(contexts), tuple(rows))


@contextmanager
def _prefixes(runners: Sequence[TreeRunner], context: int) -> Iterator[None]:
    """Runners with so many tokens behind them, released whatever happens."""
    taken = [(runner, slot) for runner in runners for slot in range(runner.num_slots)]
    for runner, slot in taken:
        runner.admit(slot, [0] * context)
    try:
        yield
    finally:
        for runner, slot in taken:
            runner.release(slot)


def _time(
    runner: TreeRunner, size: int, *, anywhere: bool = False, lopsided: bool = False
) -> float:
    """Milliseconds of one pass over roots and their children, as even over the slots as can be.

    Of fewer nodes than slots the last slot has one, where they may be anywhere. Lopsided, the first
    slot has all that are more than one of each.
    """
    used = min(size, runner.num_slots)
    each, over = divmod(size, used)
    nodes = {}
    for at in range(used):
        slot = runner.num_slots - used + at if anywhere else at
        count = each + (at < over)
        if lopsided:
            count = 1 + (size - used) * (at == 0)
        nodes[slot] = Nodes([0] * count, [-1, *[0] * (count - 1)])
    start = perf_counter()
    found = runner.forward(nodes)
    if found.logits_RV.is_cuda:
        found.log_norm_R.cpu()  # as in a step: little more than that is copied, and waited for
    else:
        found.on_host()
    took = perf_counter() - start
    for slot in nodes:
        runner.keep(slot, [])
    return took * 1e3
