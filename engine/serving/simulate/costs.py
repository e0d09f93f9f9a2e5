"""What a step of a batch takes: passes over the nodes of all its requests, and what is around them.

Two sources: what was measured of a pair (`MeasuredCosts`), and a roofline of a device that was not
(`engine.serving.simulate.roofline`), which says so. All times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import nnls

from engine.costs import PairCost, PassCost
from engine.pace import PASS_MS, REST_MS
from engine.serving.trace import ArrivalRow, Tick

#: tokens by which contexts are told apart
_CONTEXT_STEP = 32
#: a step that took so many times what as many requests usually take was interrupted
_INTERRUPTED = 2.0


class Costs(Protocol):
    """Times of the parts of a step. `rows` are nodes with roots, of the whole batch."""

    said: str  # where they come from, for people; derived ones say that they are

    def score_ms(
        self, rows_N: np.ndarray, batch: int, context: float, *, span: int = 0
    ) -> np.ndarray:
        """Of target passes over so many rows, at the batch's mean context.

        `span`: slots up to the last one in use; 0: as many as there are requests.
        """

    def draft_ms(self, rows: Sequence[int], batch: int, context: float) -> float:
        """Of draft passes over so many rows each."""

    def rest_ms(self, batch: int, nodes: float) -> float:
        """Of verifying, committing, recording and scheduling."""

    def prefill_ms(self, tokens: int) -> float:
        """Of taking in a prompt, by both models."""


class Around(NamedTuple):
    """What comes on top of passes: fitted to the ticks of a calibration run (`fit`)."""

    score: tuple[float, float, float] = (0.0, 0.0, 1.0)  # a step, a request, times the table's
    draft: tuple[float, float, float] = (PASS_MS, 0.0, 1.0)  # a pass, a request of it, times
    rest: tuple[float, float, float] = (REST_MS[0], 0.0, 0.0)  # a step, a request, a node
    prefill: tuple[float, float] = (1.0, 0.05)  # prompts read together, a token of them


#: a request by itself, as engine/pace.py takes it to be before anything is learned
ALONE = Around()


@dataclass(slots=True, eq=False)
class MeasuredCosts:
    """Passes as measured (engine/costs.py), with what a batch takes around them."""

    pair: PairCost
    around: Around = ALONE
    said: str = "measured on this machine"
    #: of the batch in which passes were measured; 1: they cost by their rows alone
    slots: int = 1
    _tables: dict[tuple[bool, int, int], np.ndarray] = field(default_factory=dict)

    def score_ms(
        self, rows_N: np.ndarray, batch: int, context: float, *, span: int = 0
    ) -> np.ndarray:
        step, request, scale = self.around.score
        rows = np.asarray(rows_N)
        table = self._table(self.pair.target, context, int(rows.max(initial=1)) + self.slots)
        if self.slots == 1:
            ms_N = table[rows]
        else:  # as `PairCost.scoring`: slots cost what there is to look at, further nodes their row
            looked = (span or batch) if batch > 1 else 1
            ms_N = table[looked] + table[self.slots + rows - batch] - table[self.slots]
        return step + request * batch + scale * ms_N

    def draft_ms(self, rows: Sequence[int], batch: int, context: float) -> float:
        if not rows:
            return 0.0
        each, request, scale = self.around.draft
        table = self._table(self.pair.draft, context, max(rows))
        return (each + request * batch) * len(rows) + scale * float(table[list(rows)].sum())

    def rest_ms(self, batch: int, nodes: float) -> float:
        step, request, node = self.around.rest
        return step + request * batch + node * nodes

    def prefill_ms(self, tokens: int) -> float:
        return self.around.prefill[0] + self.around.prefill[1] * tokens

    def _table(self, cost: PassCost, context: float, most: int) -> np.ndarray:
        """Pass times by rows at a context, at least up to `most`."""
        at = int(context) // _CONTEXT_STEP
        most = 1 << max(most, 64).bit_length()
        key = (cost is self.pair.draft, at, most)
        if key not in self._tables:
            self._tables[key] = cost.at(at * _CONTEXT_STEP + _CONTEXT_STEP // 2, most)
        return self._tables[key]


def fit(
    pair: PairCost,
    ticks: Sequence[Tick],
    arrivals: Sequence[ArrivalRow],
    *,
    context: float,
    draft_rows: Callable[[int], Sequence[int]],
    slots: int = 1,
) -> Around:
    """What a calibration run says of batches, by least squares that are never negative.

    What a tick is off by counts as a share of what such ticks take, so that small batches come out
    as right as large ones; one that took twice as long was interrupted and is left out. `context`
    is the run's mean, `slots` are those of `MeasuredCosts`; `draft_rows` says what each draft pass
    of a batch runs. Raises ValueError for a run too short to say anything.
    """
    tokens, read_ns = _reads(arrivals)
    if len(ticks) < 20 or not tokens:
        raise ValueError("a calibration run needs twenty steps and a request")
    costs = MeasuredCosts(pair, Around((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)), slots=slots)
    usual_ns = _usual(ticks)
    taken = [
        (tick, usual)
        for tick, usual in zip(ticks, usual_ns, strict=True)
        if _took(tick) <= _INTERRUPTED * usual
    ]
    rows, usual_ns = [tick.row for tick, _ in taken], np.array([usual for _, usual in taken])
    batch = np.array([row.active for row in rows], float)
    nodes = np.array([row.nodes for row in rows], float)
    passes = np.array([row.draft_passes for row in rows], float)
    scored = np.array([_score(costs, tick, context) for tick, _ in taken])
    drafted = [
        costs.draft_ms(list(draft_rows(row.active))[: row.draft_passes], row.active, context)
        for row in rows
    ]
    ones = np.ones(len(rows))
    score = _solve([ones, batch, scored], [row.score_ns for row in rows], usual_ns)
    draft = _solve(
        [passes, passes * batch, np.array(drafted)], [row.draft_ns for row in rows], usual_ns
    )
    rest = _solve(
        [ones, batch, nodes],
        [row.verify_ns + row.commit_ns + row.rest_ns for row in rows],
        usual_ns,
    )
    alike = np.ones(len(tokens))
    prefill = _solve([alike, np.array(tokens, float)], read_ns, alike)
    return Around(
        (score[0], score[1], score[2]),
        (draft[0], draft[1], draft[2]),
        (rest[0] + _gap(ticks), rest[1], rest[2]),
        (prefill[0], prefill[1]),
    )


def _reads(arrivals: Sequence[ArrivalRow]) -> tuple[list[int], list[int]]:
    """Tokens and time of prompts that were read together: their shares of it lie end to end."""
    tokens: list[int] = []
    times: list[int] = []
    seen: set[int] = set()
    until = -1
    for row in arrivals:  # told in the order in which they were admitted
        if row.admitted_ns is None or row.prefilled_ns is None or row.request in seen:
            continue
        seen.add(row.request)
        if row.admitted_ns != until:
            tokens.append(0)
            times.append(0)
        tokens[-1] += row.num_prompt
        times[-1] += row.prefilled_ns - row.admitted_ns
        until = row.prefilled_ns
    return tokens, times


def _took(tick: Tick) -> int:
    return tick.row.end_ns - tick.row.begin_ns


def _usual(ticks: Sequence[Tick]) -> np.ndarray:
    """For each tick, nanoseconds of the median one with as many requests."""
    took = np.array([_took(tick) for tick in ticks], float)
    active = np.array([tick.row.active for tick in ticks])
    return np.array([np.median(took[active == size]) for size in active])


def _score(costs: MeasuredCosts, tick: Tick, context: float) -> float:
    """What the tables say of a tick's target pass, over the slots that it looked at."""
    row, span = tick.row, max(share.slot for share in tick.shares) + 1
    return float(
        costs.score_ms(np.array([row.active + row.nodes]), row.active, context, span=span)[0]
    )


def _solve(
    features: list[np.ndarray], measured_ns: Sequence[int], usual_ns: np.ndarray
) -> list[float]:
    """Coefficients in milliseconds; what a reading is off by counts by what is usual for it."""
    known = np.stack(features, axis=1) / usual_ns[:, None]
    found, _ = nnls(known, np.asarray(measured_ns, float) * 1e-6 / usual_ns)
    return [float(value) for value in found]


def _gap(ticks: Sequence[Tick]) -> float:
    """Milliseconds between a step and the next one where nothing else went on, the median."""
    rows = [tick.row for tick in ticks]
    gaps = [(after.begin_ns - before.end_ns) * 1e-6 for before, after in pairwise(rows)]
    return float(np.median(gaps))
