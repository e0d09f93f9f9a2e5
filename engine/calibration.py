"""How often a draft's child is accepted, by its rank and the probability the draft gave it.

A draft's probabilities are not chances of acceptance: they are right on average at best, and a
second choice of 0.3 is another thing than a first one. So both are counted, from a prior that takes
the draft at its word, in the log of a run or while decoding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.records import Fate, Verdict
from engine.tree import TokenTree

#: ranks told apart, the last one stands for all behind it
RANKS = 4
#: upper edges of the bins of log p
EDGES = np.log([0.003, 0.01, 0.03, 0.06, 0.12, 0.25, 0.45, 0.65, 0.8, 0.9, 0.97])
#: observations that the prior is worth in each cell
PRIOR_WEIGHT = 6.0


class Calibration:
    """Counts of tested and accepted children; `chance` is what they say."""

    def __init__(self) -> None:
        middles = np.exp(np.concatenate([[EDGES[0] - 1], (EDGES[:-1] + EDGES[1:]) / 2, [-0.01]]))
        self._tested_RB = np.full((RANKS, len(EDGES) + 1), PRIOR_WEIGHT)
        self._accepted_RB = np.tile(PRIOR_WEIGHT * middles, (RANKS, 1))
        self._refresh()

    def _refresh(self) -> None:
        self._log_chance = np.log(self._accepted_RB / self._tested_RB).tolist()
        self._edges = EDGES.tolist()

    def log_chance(self, rank: int, logprob: float) -> float:
        """log of the chance that a child is accepted once its parent is."""
        at = int(np.searchsorted(self._edges, logprob)) if math.isfinite(logprob) else 0
        return float(self._log_chance[min(rank, RANKS - 1)][at])

    def add(self, ranks: np.ndarray, logprobs: np.ndarray, accepted: np.ndarray) -> None:
        """Take in children whose parents were accepted."""
        cells = np.minimum(ranks, RANKS - 1), np.searchsorted(EDGES, logprobs)
        np.add.at(self._tested_RB, cells, 1.0)
        np.add.at(self._accepted_RB, cells, accepted.astype(float))
        self._refresh()

    def learn(self, tree: TokenTree, verdict: Verdict) -> None:
        """Take in one step: the children of every node on the accepted path."""
        num = tree.num_nodes
        tested = np.isin(verdict.fate_N, (Fate.ACCEPTED, Fate.REJECTED))
        tested[0] = False
        if tested.any():
            self.add(
                tree.rank_M[:num][tested],
                tree.draft_logprob_M[:num][tested],
                verdict.fate_N[tested] == Fate.ACCEPTED,
            )

    def as_json(self) -> dict[str, Any]:
        """Counts without the prior."""
        fresh = Calibration()
        return {
            "tested": (self._tested_RB - fresh._tested_RB).tolist(),
            "accepted": (self._accepted_RB - fresh._accepted_RB).tolist(),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """The way back."""
        found = cls()
        found._tested_RB = found._tested_RB + np.asarray(stored["tested"], float)
        found._accepted_RB = found._accepted_RB + np.asarray(stored["accepted"], float)
        found._refresh()
        return found
