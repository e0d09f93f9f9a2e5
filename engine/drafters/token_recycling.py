"""Drafts from the target's own leftovers: the likely successors it once gave each token.

Token recycling (Luo et al., 2408.08696): a matrix holds the top 8 of the last logits seen after
each token; a fixed tree is filled from it, and every scored node, rejected ones too, refreshes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import Common
from engine.drafters.lookup import Branches, LookupDrafter, Passes
from engine.options import option
from engine.shapes import Shape, optimal, parse_acceptance

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores
    from engine.tree import TokenTree

WIDTH = 8


@dataclass(frozen=True, slots=True)
class Options(Common):
    """The fixed tree: the optimal one for how often the successor of each rank is right."""

    nodes: int = option(80, "nodes of the tree besides the root, as in the paper", min=1, max=255)
    depth: int = option(6, "deepest level", min=1, max=32)
    acceptance: str = option(
        "0.45,0.13,0.07,0.04,0.03,0.02,0.02,0.01", "chance that each rank is right, for its shape"
    )


def shape_of(options: Options) -> Shape:
    """The tree's shape. Raises UserError for a malformed vector."""
    vector = parse_acceptance(options.acceptance)[:WIDTH]
    return optimal(vector, options.nodes + 1, options.depth)


class TokenRecycling(LookupDrafter):
    """One matrix for all requests of a pass."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        self._shape = shape_of(options)
        self._depth = self._shape.depths()
        self._successors_VK = np.full((context.vocab_size, WIDTH), -1, np.int64)
        self._passes = Passes()

    def admit(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            if self._passes.begins_anew(sequence):
                self._successors_VK.fill(-1)

    def branches(self, sequence: Sequence) -> Branches:
        found = Branches(sequence.tokens[-1])
        number = [0] + [-1] * (self._shape.num_nodes - 1)  # node of the shape -> of the tree
        parents, ranks = self._shape.parents_N, self._shape.rank_N
        for node in range(1, self._shape.num_nodes):
            parent = number[parents[node]]
            if parent < 0 or self._depth[node] > sequence.max_depth:
                continue
            token = int(self._successors_VK[found.tokens[parent], ranks[node]])
            if token >= 0:
                number[node] = found.child(parent, token)
        return found

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        logits_NV = scores.logits_NV
        width = min(WIDTH, logits_NV.shape[1])
        best_NK = np.argpartition(-logits_NV, width - 1, axis=1)[:, :width]
        order = np.argsort(-np.take_along_axis(logits_NV, best_NK, 1), axis=1, kind="stable")
        tokens_N = tree.tokens_M[: tree.num_nodes]
        self._successors_VK[tokens_N, :width] = np.take_along_axis(best_NK, order, 1)


METHOD = Method(
    name="token-recycling",
    summary="Fills a fixed tree with the successors the target itself once proposed.",
    options=Options,
    build=TokenRecycling,
    max_nodes=lambda options: shape_of(options).num_nodes,
)
