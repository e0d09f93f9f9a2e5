"""How often a draft's child is accepted, by its rank and the probability the draft gave it.

A draft's probabilities are not chances of acceptance: they are right on average at best, and a
second choice of 0.3 is another thing than a first one. So both are counted, over a prior that takes
the draft at its word: in stored runs, and on from there while decoding.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import Any

import numpy as np

from engine.records import Fate, Verdict
from engine.tree import Children, TokenTree

#: ranks told apart, the last one stands for all behind it
RANKS = 4
#: upper edges of the bins of log p
EDGES = np.log([0.003, 0.01, 0.03, 0.06, 0.12, 0.25, 0.45, 0.65, 0.8, 0.9, 0.97])
BINS = len(EDGES) + 1
#: where a root is counted among parents: it has no probability of its own
ROOT_BIN = BINS
#: observations that the prior is worth in each cell
PRIOR_WEIGHT = 6.0

_EDGES: list[float] = EDGES.tolist()
_MIDDLES: list[float] = np.exp(
    np.concatenate([[EDGES[0] - 1], (EDGES[:-1] + EDGES[1:]) / 2, [-0.01]])
).tolist()
#: a sure draft tends to be sure of what follows as well
_PRIOR_CONTINUED = [*(0.4 + 0.45 * middle for middle in _MIDDLES), 0.6]
_ACCEPTED, _REJECTED = int(Fate.ACCEPTED), int(Fate.REJECTED)


def kind_of(children: Children, *, greedy: bool) -> str:
    """Counts of which kind fit: `greedy`, `fixed` or `coupled`.

    The same probability promises different things: a greedy target takes its likeliest token and
    nothing else, a sampling one takes a FIXED child with the target's own probability, and a
    COUPLED child was favoured by the noise that the target uses too. Temperatures above 0 differ by
    degrees only, which learning on makes up for.
    """
    return "greedy" if greedy else children.value


KINDS = ("greedy", "fixed", "coupled")


class Calibration:
    """Counts of tested and accepted children; `chance` is what they say.

    Beside them, of accepted nodes that had children: how often one of those was accepted.
    """

    def __init__(self) -> None:
        self.tested_RB = [[0.0] * BINS for _ in range(RANKS)]
        self.accepted_RB = [[0.0] * BINS for _ in range(RANKS)]
        self.parents_B = [0.0] * (BINS + 1)
        self.continued_B = [0.0] * (BINS + 1)
        self._chance_RB = [[0.0] * BINS for _ in range(RANKS)]
        self._refresh()

    def _refresh(self) -> None:
        for rank in range(RANKS):
            for at in range(BINS):
                self._refresh_cell(rank, at)

    def _refresh_cell(self, rank: int, at: int) -> None:
        accepted = self.accepted_RB[rank][at] + PRIOR_WEIGHT * _MIDDLES[at]
        self._chance_RB[rank][at] = accepted / (self.tested_RB[rank][at] + PRIOR_WEIGHT)

    # -- what the counts say -------------------------------------------------------------------

    def chance(self, rank: int, logprob: float) -> float:
        """Chance that a child is accepted once its parent is."""
        return self._chance_RB[rank if rank < RANKS else RANKS - 1][bin_of(logprob)]

    def continues(self, logprob: float | None) -> float:
        """Chance that an accepted node of this draft probability has an accepted child.

        None stands for a root.
        """
        at = ROOT_BIN if logprob is None else bin_of(logprob)
        hits = self.continued_B[at] + PRIOR_WEIGHT * _PRIOR_CONTINUED[at]
        return hits / (self.parents_B[at] + PRIOR_WEIGHT)

    @property
    def num_tested(self) -> int:
        """Children counted."""
        return round(sum(map(sum, self.tested_RB)))

    # -- counting ------------------------------------------------------------------------------

    def add(self, ranks: np.ndarray, logprobs: np.ndarray, accepted: np.ndarray) -> None:
        """Take in children whose parents were accepted."""
        cells = np.minimum(ranks, RANKS - 1), np.searchsorted(EDGES, logprobs)
        for into, weights in ((self.tested_RB, np.ones(len(ranks))), (self.accepted_RB, accepted)):
            counts = np.zeros((RANKS, BINS))
            np.add.at(counts, cells, weights.astype(float))
            for row, more in zip(into, counts.tolist(), strict=True):
                row[:] = [old + new for old, new in zip(row, more, strict=True)]
        self._refresh()

    def add_parents(self, logprobs: np.ndarray, continued: np.ndarray) -> None:
        """Take in accepted nodes that had children; NaN stands for a root."""
        at = np.where(np.isnan(logprobs), ROOT_BIN, np.searchsorted(EDGES, logprobs))
        for into, weights in ((self.parents_B, None), (self.continued_B, continued.astype(float))):
            counts = np.bincount(at, weights=weights, minlength=BINS + 1)
            into[:] = [old + new for old, new in zip(into, counts.tolist(), strict=True)]

    def learn(self, tree: TokenTree, verdict: Verdict) -> None:
        """Take in one step: the children of every node on the accepted path.

        Plain Python: a step tests a handful of nodes, and this runs in every step.
        """
        fates = verdict.fate_N.tolist()
        ranks, logprobs = tree.rank_M.tolist(), tree.draft_logprob_M.tolist()
        parents = tree.parents_M.tolist()
        tried: dict[int, bool] = {}
        for node in range(1, tree.num_nodes):
            fate = fates[node]
            if fate != _ACCEPTED and fate != _REJECTED:
                continue
            hit = fate == _ACCEPTED
            rank = ranks[node] if ranks[node] < RANKS else RANKS - 1
            at = bin_of(logprobs[node])
            self.tested_RB[rank][at] += 1.0
            self.accepted_RB[rank][at] += hit
            self._refresh_cell(rank, at)
            tried[parents[node]] = tried.get(parents[node], False) or hit
        for parent, hit in tried.items():
            at = bin_of(logprobs[parent]) if parent else ROOT_BIN
            self.parents_B[at] += 1.0
            self.continued_B[at] += hit

    # -- keeping -------------------------------------------------------------------------------

    def limited(self, most: float) -> Calibration:
        """A copy in which no cell weighs more than `most`, so that what is learned next counts."""
        found = Calibration()
        pairs = (
            *zip(self.tested_RB, self.accepted_RB, found.tested_RB, found.accepted_RB, strict=True),
            (self.parents_B, self.continued_B, found.parents_B, found.continued_B),
        )
        for trials, hits, into_trials, into_hits in pairs:
            for at, count in enumerate(trials):
                share = min(1.0, most / count) if count else 0.0
                into_trials[at], into_hits[at] = count * share, hits[at] * share
        found._refresh()
        return found

    def as_json(self) -> dict[str, Any]:
        """Counts without the prior: by rank and bin, and of parents by bin, the root last."""
        return {
            "tested": self.tested_RB,
            "accepted": self.accepted_RB,
            "parents": self.parents_B,
            "continued": self.continued_B,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """The way back. Raises KeyError, TypeError or ValueError for what is none."""
        found = cls()
        pairs = (
            (found.tested_RB, stored["tested"]),
            (found.accepted_RB, stored["accepted"]),
            ([found.parents_B], [stored["parents"]]),
            ([found.continued_B], [stored["continued"]]),
        )
        for into, rows in pairs:
            for row, values in zip(into, rows, strict=True):
                if len(values) != len(row):
                    raise ValueError(f"{len(values)} bins where {len(row)} are known")
                row[:] = [float(value) for value in values]
        hits = [*found.accepted_RB, found.continued_B]
        for most, row in zip([*found.tested_RB, found.parents_B], hits, strict=True):
            if not all(0.0 <= one <= all_of < inf for one, all_of in zip(row, most, strict=True)):
                raise ValueError("more was accepted than tested")
        found._refresh()
        return found


def bin_of(logprob: float) -> int:
    """The bin of a log-probability; what is not a number counts as hopeless."""
    return bisect_left(_EDGES, logprob) if logprob == logprob else 0
