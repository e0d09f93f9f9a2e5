"""Oracle and regret of a run's own steps, as docs/measuring.md defines them.

Among the drafter's top-K candidates the best tree in hindsight follows the true tokens as long as
each ranks below K, within the nodes, depth and draft passes that the step's own tree took.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench import metrics
from workbench.store.reader import RunReader
from workbench.whatif.ranks import UNKNOWN, RequestRanks, RunRanks

_BOUNDS = ("low", "high")


@dataclass(frozen=True, slots=True)
class Oracle:
    """Bounds by step, one row per step: request, step, accepted, low, high (nodes)."""

    steps: pd.DataFrame
    top_k: int

    @property
    def exact(self) -> bool:
        return bool((self.steps["low"] == self.steps["high"]).all())

    @property
    def tokens_per_step(self) -> tuple[float, float]:
        """Emitted by step if every step had had its best tree, low and high."""
        low, high = (
            metrics.tokens_per_step(int(self.steps[bound].sum()) + len(self.steps), len(self.steps))
            for bound in _BOUNDS
        )
        return low, high

    @property
    def regret(self) -> tuple[float, float]:
        """Oracle tokens minus accepted tokens, by step, low and high."""
        gain = {bound: (self.steps[bound] - self.steps["accepted"]).sum() for bound in _BOUNDS}
        low, high = (metrics.ratio(float(gain[bound]), len(self.steps)) for bound in _BOUNDS)
        return low, high


def oracle(reader: RunReader, ranks: RunRanks) -> Oracle | None:
    """Of a run that drafted; None for one that did not, or whose tokens drew on other ranks."""
    nodes = reader.nodes(repeat=0).query("node > 0")
    if nodes.empty:
        return None
    top_k = int(nodes["rank"].max()) + 1
    depths = nodes.groupby(["request", "step"])["depth"].max()
    by_request = {r.request: r for r in ranks.requests}
    rows = []
    for step in reader.steps(repeat=0).to_dict("records"):
        request = by_request.get(int(step["request"]))
        if request is None:
            continue
        start = int(step["position"]) - request.num_prompt
        depth = int(depths.get((step["request"], step["step"]), 0))
        cap = min(depth, int(step["num_drafted"]), int(step["draft_passes"]))
        low, high = _reach(request, start, cap, top_k)
        accepted = int(step["num_accepted"])
        # past the end of the text nothing is known; what was accepted there counts as it is
        rows.append(
            (request.request, int(step["step"]), accepted, max(low, accepted), max(high, accepted))
        )
    columns = ["request", "step", "accepted", "low", "high"]
    return Oracle(pd.DataFrame(rows, columns=columns), top_k)


def _reach(request: RequestRanks, start: int, cap: int, top_k: int) -> tuple[int, int]:
    """True tokens from `start` on, at most `cap`, that rank below `top_k`: surely, and at best."""
    low, certain = 0, True
    for reached in range(cap):
        at = start + reached
        if at >= len(request.rank_L):
            return low, reached
        rank = int(request.rank_L[at])
        if rank == UNKNOWN:
            certain = False
            if set(range(top_k)) <= request.excluded.get(at, frozenset()):
                return low, reached
        elif rank >= top_k:
            return low, reached
        if certain:
            low = reached + 1
    return low, cap


def mean_rank_share(ranks: RunRanks, top_k: int) -> float:
    """Share of known ranks below `top_k`: how often the draft names the token at all."""
    known = np.concatenate([r.rank_L[r.rank_L != UNKNOWN] for r in ranks.requests])
    return metrics.ratio(int((known < top_k).sum()), len(known))
