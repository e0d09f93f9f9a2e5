"""Which nodes a simulated method drafts for each request of a batch, and what of them is accepted.

No speculation, SpecInfer's static tree, a dynamic tree of fixed size or of the scheduler's budgets,
and the batch-wide auction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from engine.serving.simulate.acceptance import MeasuredSteps
from engine.serving.simulate.costs import Costs

#: SpecInfer's own expansion (2305.09781): 20 drafted nodes
SPECINFER = (1, 1, 3, 1, 1, 1, 1, 1)
#: tokens by which contexts are told apart in planning
_CONTEXT_STEP = 64


class Choice(NamedTuple):
    """Of one step. `bid_B`: tokens that the nodes were expected to bring; NaN: nobody asked."""

    nodes_B: np.ndarray
    depth_B: np.ndarray
    accepted_B: np.ndarray
    bid_B: np.ndarray
    draft_rows: list[int]  # of each draft pass, the batch together


class Shape(Protocol):
    """A drafting method, as far as a simulation sees it."""

    def choose(self, at_B: np.ndarray, *, context: float, budgets_B: np.ndarray | None) -> Choice:
        """Trees of a batch whose requests are at these measured steps."""


class Plain:
    """Nothing is drafted."""

    def choose(self, at_B: np.ndarray, *, context: float, budgets_B: np.ndarray | None) -> Choice:
        none = np.zeros(len(at_B), np.int64)
        return Choice(none, none, none, np.full(len(at_B), np.nan), [])


class Static:
    """Every node at depth i - 1 has k_i children, in every step. Budgets do not bound it."""

    def __init__(self, steps: MeasuredSteps, expansion: Sequence[int] = SPECINFER) -> None:
        self._accepted_S = steps.of_expansion(expansion)
        self._levels = np.cumprod([1, *expansion])
        self._nodes, self._depth = int(self._levels[1:].sum()), len(expansion)

    def choose(self, at_B: np.ndarray, *, context: float, budgets_B: np.ndarray | None) -> Choice:
        batch = len(at_B)
        return Choice(
            np.full(batch, self._nodes),
            np.full(batch, self._depth),
            self._accepted_S[at_B],
            np.full(batch, np.nan),
            [batch * int(rows) for rows in self._levels[:-1]],
        )


class Dynamic:
    """The best nodes by path probability: so many, or as many as the budgets allow.

    Drafted level by level down to `depth`, `width` nodes expanded in each pass but the first.
    """

    def __init__(self, steps: MeasuredSteps, *, nodes: int, depth: int, width: int) -> None:
        self._nodes, self._width = nodes, width
        self._levels = _Levels(steps, depth)
        self._depth = depth

    def choose(self, at_B: np.ndarray, *, context: float, budgets_B: np.ndarray | None) -> Choice:
        steps = self._levels
        most_B = np.full(len(at_B), self._nodes)
        if budgets_B is not None:
            most_B = np.minimum(most_B, budgets_B)
        nodes_B = np.minimum(most_B, steps.count_S[at_B])
        drafting = int((most_B > 0).sum())
        rows = [drafting * (1 if level == 0 else self._width) for level in range(self._depth)]
        return Choice(
            nodes_B,
            np.where(nodes_B > 0, steps.deepest_SM[at_B, nodes_B], 0),
            steps.accepted_SM[at_B, nodes_B],
            steps.expected_SM[at_B, nodes_B],
            rows if drafting else [],
        )


class Auction:
    """Nodes of all requests compete for a total that makes most tokens of the time.

    Depth, and whether to draft at all, is settled before drafting from the mean chances; the nodes
    after it from each request's own.
    """

    def __init__(
        self,
        steps: MeasuredSteps,
        costs: Costs,
        *,
        depth: int,
        width: int,
        most: int | None = None,
    ) -> None:
        self._costs, self._width = costs, width
        self._most = min(most or steps.num_nodes, steps.num_nodes)
        self._levels = [_Levels(steps, level, most=self._most) for level in range(depth + 1)]
        self._plans: dict[tuple[int, int], tuple[int, float]] = {}

    def choose(self, at_B: np.ndarray, *, context: float, budgets_B: np.ndarray | None) -> Choice:
        batch = len(at_B)
        key = (batch, int(context) // _CONTEXT_STEP)
        if key not in self._plans:  # the same whatever context comes first
            self._plans[key] = self._plan(batch, (key[1] + 0.5) * _CONTEXT_STEP)
        depth, rate = self._plans[key]
        if depth == 0:
            return Plain().choose(at_B, context=context, budgets_B=budgets_B)
        steps = self._levels[depth]
        rows = self._rows(batch, depth)
        reach_BN = steps.reach_SN[at_B]
        order = np.argsort(-reach_BN, axis=None, kind="stable")
        chances = reach_BN.ravel()[order]
        count = self._best_total(chances[chances > 0], batch, context, rate)
        chosen_BN = np.zeros(reach_BN.size, bool)
        chosen_BN[order[:count]] = True
        chosen_BN = chosen_BN.reshape(reach_BN.shape)
        return Choice(
            chosen_BN.sum(axis=1),
            (chosen_BN * steps.depth_SN[at_B]).max(axis=1),
            (chosen_BN & steps.taken_SN[at_B]).sum(axis=1),
            (chosen_BN * reach_BN).sum(axis=1),
            rows,
        )

    def _rows(self, batch: int, depth: int) -> list[int]:
        return [batch * (1 if level == 0 else self._width) for level in range(depth)]

    def _plan(self, batch: int, context: float) -> tuple[int, float]:
        """The depth at which mean chances make most tokens of the time, and their rate.

        Depth 0: do not draft.
        """
        found, best = 0, 0.0
        for depth, steps in enumerate(self._levels):
            tokens_N = batch + batch * np.concatenate([[0.0], np.cumsum(steps.mean_N)])
            totals = batch * (1 + np.arange(len(tokens_N)))
            ms_N = self._costs.score_ms(totals, batch, context)
            ms_N = ms_N + self._costs.draft_ms(self._rows(batch, depth), batch, context)
            rate = float((tokens_N / (ms_N + self._costs.rest_ms(batch, 0))).max())
            if rate > best:
                found, best = depth, rate
        return found, best

    def _best_total(self, chances: np.ndarray, batch: int, context: float, rate: float) -> int:
        """How many nodes are worth their time at the rate at which time turns into tokens."""
        tokens_N = np.concatenate([[0.0], np.cumsum(chances)])
        totals = batch + np.arange(len(tokens_N))
        ms_N = self._costs.score_ms(totals, batch, context)
        return int((tokens_N - rate * ms_N).argmax())


class _Levels:
    """Measured steps with nodes down to a depth only; M runs over 0, 1, ..., N nodes."""

    def __init__(self, steps: MeasuredSteps, depth: int, *, most: int | None = None) -> None:
        reach, there = steps.reach_SN, (steps.depth_SN > 0) & (steps.depth_SN <= depth)
        order = np.argsort(~there, axis=1, kind="stable")[:, : most or steps.num_nodes]
        there = np.take_along_axis(there, order, axis=1)
        self.depth_SN = np.take_along_axis(steps.depth_SN, order, axis=1) * there
        self.taken_SN = np.take_along_axis(steps.taken_SN, order, axis=1) & there
        self.reach_SN = np.take_along_axis(reach, order, axis=1) * there
        self.count_S = there.sum(axis=1)
        self.accepted_SM = _from_none(np.cumsum(self.taken_SN, axis=1, dtype=np.int64))
        self.expected_SM = _from_none(np.cumsum(self.reach_SN, axis=1))
        self.deepest_SM = _from_none(np.maximum.accumulate(self.depth_SN, axis=1))
        #: what the n-th best node of a step is worth on average
        self.mean_N = -np.sort(-self.reach_SN, axis=1).mean(axis=0)


def _from_none(table_SN: np.ndarray) -> np.ndarray:
    """The same with a column of zeros before it."""
    return np.pad(table_SN, ((0, 0), (1, 0)))
