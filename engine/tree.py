"""The draft of one request as a tree of tokens.

Letters: N nodes scored by the target (root included), M >= N nodes ever proposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np

#: draft models of one tree at most: `TokenTree.drafts_M` has a bit for each
MOST_DRAFTS = 8


class Children(StrEnum):
    """How a node's children were chosen. A verifier needs it to stay lossless."""

    FIXED = "fixed"  # without randomness, e.g. the draft's top-k
    COUPLED = "coupled"  # top-k of log q + g, g being the noise the target will use there
    SAMPLED = "sampled"  # drawn from q, which travels along in `draft_probs`


class Source(IntEnum):
    """Where a node's token came from."""

    ROOT = 0
    DRAFT = 1
    NGRAM = 2
    LOOKUP = 3
    HEAD = 4
    SELF = 5


@dataclass(slots=True)
class TokenTree:
    """Nodes in the order they were added; a parent stands before its children.

    Node 0 is the last token already emitted. The first `num_nodes` nodes are scored by the
    target; those after them were proposed and pruned again, and are kept for the viewer only.
    """

    tokens_M: np.ndarray  # int64
    parents_M: np.ndarray  # int32, -1 at the root
    depth_M: np.ndarray  # int32, 0 at the root
    rank_M: np.ndarray  # int32, rank among siblings, best (or drawn) first
    #: float32, log q of the token given its path; 0 at the root, NaN where the drafter has none
    draft_logprob_M: np.ndarray
    source_M: np.ndarray  # uint8, `Source`
    round_added_M: np.ndarray  # int16, growth round in which the node appeared; 0 at the root
    round_pruned_M: np.ndarray  # int16, -1 for nodes that stayed
    num_nodes: int
    children: Children = Children.FIXED
    #: SAMPLED only: node -> q_V its children were drawn from, in draw order.
    draft_probs: dict[int, np.ndarray] = field(default_factory=dict)
    #: passes of the draft model this tree took
    draft_passes: int = 0
    #: of several draft models, those whose tree has the node: uint8, a bit each, 0 at the root;
    #: None where one drafted alone
    drafts_M: np.ndarray | None = None
    #: what the drafter expected of the step: emitted tokens and milliseconds; NaN: it said nothing
    expected_tokens: float = math.nan
    expected_ms: float = math.nan

    @property
    def num_drafted(self) -> int:
        """Nodes that the target scores besides the root."""
        return self.num_nodes - 1

    def cut(self, budget: int) -> None:
        """Leave the first `budget` drafted nodes, where there are more; the others are pruned.

        Parents stand before their children, so what stays is a tree. Drawn nodes are cut by their
        place alone, never by what was drawn.
        """
        if self.num_drafted > budget:
            self.round_pruned_M[budget + 1 : self.num_nodes] = self.round_added_M.max()
            self.num_nodes = budget + 1

    def children_of(self) -> list[list[int]]:
        """For each scored node, its scored children in rank order."""
        kids: list[list[int]] = [[] for _ in range(self.num_nodes)]
        for node in range(1, self.num_nodes):
            kids[self.parents_M[node]].append(node)
        return kids

    def path_to(self, node: int) -> list[int]:
        """Nodes from the root to `node`, both included."""
        path = [node]
        while self.parents_M[path[-1]] >= 0:
            path.append(int(self.parents_M[path[-1]]))
        return path[::-1]

    def check_integrity(self) -> None:
        """Raise AssertionError where the invariants in the class docstring do not hold."""
        total = len(self.tokens_M)
        assert 1 <= self.num_nodes <= total
        for name in ("parents_M", "depth_M", "rank_M", "draft_logprob_M", "source_M"):
            assert len(getattr(self, name)) == total, name
        assert self.parents_M[0] == -1
        assert self.depth_M[0] == 0
        parents = self.parents_M[1:]
        assert (parents >= 0).all()
        assert (parents < np.arange(1, total)).all()
        assert (self.depth_M[1:] == self.depth_M[parents] + 1).all()
        assert (parents[: self.num_nodes - 1] < self.num_nodes).all(), "parent pruned, child kept"
        assert (self.round_pruned_M[: self.num_nodes] == -1).all()
        if self.children is not Children.SAMPLED:
            kept = slice(1, self.num_nodes)
            edges = list(zip(self.parents_M[kept], self.tokens_M[kept], strict=True))
            assert len(edges) == len(set(edges)), "a token stands twice under one parent"


def drafts_text(mask: int) -> str:
    """Which draft models a mask of `drafts_M` stands for, counted from one: `1+2`; empty: none."""
    return "+".join(str(bit + 1) for bit in range(MOST_DRAFTS) if mask >> bit & 1)


def drafts_mask(text: str) -> int:
    """The way back."""
    return sum(1 << int(number) - 1 for number in text.split("+") if number)


def root_only(token: int) -> TokenTree:
    """The tree of plain decoding: nothing drafted."""
    return tree_from_lists([token], [-1], [0.0])


def tree_from_lists(
    tokens: list[int],
    parents: list[int],
    draft_logprobs: list[float],
    *,
    children: Children = Children.FIXED,
    source: Source = Source.DRAFT,
) -> TokenTree:
    """A tree from plain lists; ranks follow the order in which siblings are listed."""
    total = len(tokens)
    depth = np.zeros(total, np.int32)
    rank = np.zeros(total, np.int32)
    seen: dict[int, int] = {}
    for node in range(1, total):
        parent = parents[node]
        depth[node] = depth[parent] + 1
        rank[node] = seen.get(parent, 0)
        seen[parent] = int(rank[node]) + 1
    source_M = np.full(total, source, np.uint8)
    source_M[0] = Source.ROOT
    return TokenTree(
        tokens_M=np.asarray(tokens, np.int64),
        parents_M=np.asarray(parents, np.int32),
        depth_M=depth,
        rank_M=rank,
        draft_logprob_M=np.asarray(draft_logprobs, np.float32),
        source_M=source_M,
        round_added_M=depth.astype(np.int16),
        round_pruned_M=np.full(total, -1, np.int16),
        num_nodes=total,
        children=children,
    )
