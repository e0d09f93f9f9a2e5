"""Trees that pay: grown while one more draft pass or node raises expected tokens per second.

Nodes are scored by calibrated acceptance (engine/calibration.py), which goes on learning; times
are those of this machine (engine/costs.py), measured when the engine is built. Where no tree pays,
nothing is drafted, but for a probe now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.calibration import Calibration
from engine.costs import measure
from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import ModelDrafter, Policy
from engine.growth import Chooser, Growth

if TYPE_CHECKING:
    from engine.drafters.dynamic_tree import Options
    from engine.records import Verdict
    from engine.target import Scores
    from engine.tree import TokenTree

#: steps without drafting after which it is tried again
PROBE_EVERY = 24
#: weight of the past in what expanding a node brings
_DECAY = 0.95
#: a method's own work per draft pass and per step, in milliseconds, beside the models' passes
_PASS_OVERHEAD_MS, _STEP_OVERHEAD_MS = 0.1, 0.15


class AutoDrafter(ModelDrafter):
    """Grows each tree under the measured costs; learns from every verdict."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        assert context.draft is not None
        super().__init__(self._grow, options, context)
        self._bounds = options
        self.calibration = Calibration()
        self._target_cost = measure(context.target, options.most + 1)
        self._draft_cost = measure(context.draft, options.frontier)
        self._brings = 0.6  # chance that a reached node's child is right, if it has some
        self._silent = 0
        self._plan: _Plan | None = None

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        longest = max(sequence.position for sequence in sequences)
        self._plan = _Plan(self._target_cost.at(longest), self._draft_cost.at(longest))
        return super().propose(sequences)

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        super().observe(sequence, tree, verdict, scores)
        self._silent = 0 if tree.num_drafted else self._silent + 1
        self.calibration.learn(tree, verdict)
        parents = set(tree.parents_M[1 : tree.num_nodes].tolist())
        for node in verdict.path_A:
            if node in parents:
                hit = node != verdict.path_A[-1]
                self._brings += (1 - _DECAY) * (hit - self._brings)

    def _grow(self, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
        """Expand what is likeliest while that is expected to raise the rate."""
        plan, bounds = self._plan, self._bounds
        assert plan is not None
        log_reach = [0.0]  # calibrated, by node
        frontier, passes_ms = [0], 0.0
        probing = self._silent >= PROBE_EVERY
        for _ in range(min(max_depth, bounds.depth)):
            reach = np.exp([log_reach[node] for node in frontier])
            order = np.argsort(-reach, kind="stable")
            so_far = self._reached(log_reach)
            width = plan.width(so_far, reach[order], self._brings, passes_ms, bounds.most)
            if width == 0 and not (probing and growth.depth[-1] == 0):
                break
            width = max(min(width, bounds.frontier), 1)
            chosen = sorted(frontier[at] for at in order[:width])
            rows = yield chosen
            if not rows:
                break
            passes_ms += plan.draft_ms(width)
            added: list[int] = []
            for node, row in zip(chosen, rows, strict=True):
                children = growth.add_children(
                    node, *chooser.choose(growth, node, row, bounds.top_k)
                )
                for child in children:
                    own = self.calibration.log_chance(growth.rank[child], growth.logprob[child])
                    log_reach.append(log_reach[node] + min(own, 0.0))
                added += children
            frontier = added
        reach = self._reached(log_reach)
        count = plan.best_size(reach, passes_ms, bounds.most)
        order = np.argsort(-np.asarray(log_reach[1:]), kind="stable")[:count] + 1
        return sorted(order.tolist())

    @staticmethod
    def _reached(log_reach: list[float]) -> np.ndarray:
        """Chances of the nodes besides the root, best first."""
        return np.sort(np.exp(log_reach[1:]))[::-1]


class _Plan:
    """Rates under the costs at one context: expected tokens per millisecond."""

    def __init__(self, target_ms: np.ndarray, draft_ms: np.ndarray) -> None:
        self._target_ms, self._draft_ms = target_ms + _STEP_OVERHEAD_MS, draft_ms

    def draft_ms(self, width: int) -> float:
        """Time of a draft pass over so many nodes."""
        return float(self._draft_ms[min(width, len(self._draft_ms) - 1)]) + _PASS_OVERHEAD_MS

    def _rates(self, reach: np.ndarray, passes_ms: float, most: int) -> np.ndarray:
        """Tokens per millisecond with the best 0, 1, 2, ... nodes."""
        sizes = min(len(reach), most, len(self._target_ms) - 2)
        tokens = 1.0 + np.concatenate([[0.0], np.cumsum(reach[:sizes])])
        return tokens / (passes_ms + self._target_ms[1 : sizes + 2])

    def best_size(self, reach: np.ndarray, passes_ms: float, most: int) -> int:
        """How many of the best nodes to keep."""
        return int(self._rates(reach, passes_ms, most).argmax())

    def width(
        self, so_far: np.ndarray, frontier: np.ndarray, brings: float, passes_ms: float, most: int
    ) -> int:
        """How many of the frontier's best to expand; 0: another pass does not pay.

        Expanding a node of chance c is taken to bring one node of chance c * `brings`.
        """
        best = float(self._rates(so_far, passes_ms, most).max())
        width = 0
        for count in range(1, len(frontier) + 1):
            hoped = np.sort(np.concatenate([so_far, brings * frontier[:count]]))[::-1]
            rate = float(self._rates(hoped, passes_ms + self.draft_ms(count), most).max())
            if rate > best:
                best, width = rate, count
        return width
