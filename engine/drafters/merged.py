"""Trees of several draft models merged into one: the union of their root-to-node token sequences.

SpecInfer (Miao et al., 2305.09781), token tree merge: models that err in different places cover
more of what the target may say than one of them does. Each model drafts its own tree under the same
options; a token that several hang under the same path becomes one node. On one device the models
run one after another.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from engine.drafters.base import Drafter, Method, Sequence
from engine.errors import UserError
from engine.records import Origin, Verdict
from engine.registry import METHODS, method_names
from engine.rules import DRAWN_RULES
from engine.sampling import Sampling
from engine.target import Scores
from engine.tree import MOST_DRAFTS, Source, TokenTree


def why_one_draft(
    method: Method, options: Any, *, sampling: Sampling, verify: str, children: str
) -> str:
    """Why trees of several draft models cannot be merged here; empty where they can."""
    if not method.merges:
        able = [name for name in method_names() if METHODS[name].merges]
        return (
            f"{method.name} drafts with one draft model; several are merged into one tree by"
            f" {', '.join(able)}."
        )
    if because := method.one_draft_because(options):
        return because
    drawn = verify in DRAWN_RULES or children == "sampled"
    if drawn and not sampling.greedy:
        return (
            "Sampled children of several draft models cannot be merged: rules that judge draws"
            " need the one law that a node was drawn from, and a merged node may have several."
            " Use --verify match with coupled or fixed children, or one draft model."
        )
    return ""


class Merged:
    """Proposes with every drafter, merges their trees, and tells each what became of its own."""

    def __init__(self, drafters: Many[Drafter]) -> None:
        if len(drafters) > MOST_DRAFTS:
            raise UserError(
                f"{len(drafters)} draft models were given; at most {MOST_DRAFTS} are merged."
            )
        self.children = drafters[0].children
        self._drafters = drafters
        self._parts: dict[int, list[Part]] = {}  # by slot, in the order of the drafters

    def admit(self, *sequences: Sequence) -> None:
        for drafter in self._drafters:
            drafter.admit(*sequences)

    def release(self, slot: int) -> None:
        self._parts.pop(slot, None)
        for drafter in self._drafters:
            drafter.release(slot)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        trees = []
        proposed = self._proposed(sequences)
        for sequence, own in zip(sequences, zip(*proposed, strict=True), strict=True):
            tree, self._parts[sequence.slot] = merge(own)
            trees.append(tree)
        return trees

    def _proposed(self, sequences: list[Sequence]) -> list[list[TokenTree]]:
        """What each drafter proposes."""
        return [drafter.propose(sequences) for drafter in self._drafters]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        parts = self._parts.pop(sequence.slot, None)
        if parts is None:  # somebody else's tree, which all of them see as it is
            for drafter in self._drafters:
                drafter.observe(sequence, tree, verdict, scores)
            return
        emitted = [int(tree.tokens_M[node]) for node in verdict.path_A[1:]] + [verdict.next_token]
        for drafter, part in zip(self._drafters, parts, strict=True):
            own = part.verdict(verdict, emitted)
            drafter.observe(sequence, part.tree, own, _OwnScores(scores, part.scored_N))


class Part(NamedTuple):
    """One draft's own tree, and which node of the merged tree each of its nodes became."""

    tree: TokenTree
    place_M: np.ndarray

    @property
    def scored_N(self) -> np.ndarray:
        """Nodes of the merged tree that stand for the scored nodes of this one."""
        return self.place_M[: self.tree.num_nodes]

    def verdict(self, merged: Verdict, emitted: list[int]) -> Verdict:
        """The verdict on this tree alone: how far the accepted path runs within it.

        `emitted` is what the step emitted; more of it than this tree's path may have been accepted.
        """
        mine = {int(at): node for node, at in enumerate(self.scored_N)}
        path = [mine[node] for node in merged.path_A if node in mine]
        parents = self.tree.parents_M[1 : self.tree.num_nodes]
        return Verdict(
            path_A=path,
            next_token=emitted[len(path) - 1],
            origin=Origin.CORRECTION if (parents == path[-1]).any() else Origin.BONUS,
            fate_N=merged.fate_N[self.scored_N],
            accept_prob_N=merged.accept_prob_N[self.scored_N],
        )


class _OwnScores(Scores):
    """Scores of one draft's own nodes, gathered only if its drafter looks at them."""

    def __init__(self, merged: Scores, nodes_N: np.ndarray) -> None:
        self._merged, self._nodes_N = merged, nodes_N

    @cached_property
    def logits_NV(self) -> np.ndarray:  # type: ignore[override]
        return self._merged.logits_NV[self._nodes_N]

    @cached_property
    def log_norm_N(self) -> np.ndarray:  # type: ignore[override]
        return self._merged.log_norm_N[self._nodes_N]


def merge(trees: Many[TokenTree]) -> tuple[TokenTree, list[Part]]:
    """The union of trees over one root, best draft first; equal trees give that tree.

    Siblings rank as in the first tree, then those that only later trees have, in their order. A
    node is scored if any tree keeps it, has the log-probability of the draft that believes in it
    most, and the earliest round that added it.
    """
    union = _Union.over(trees[0])
    found = [union.take(which, tree) for which, tree in enumerate(trees)]
    order = union.order()
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    parts = [Part(tree, number[np.asarray(at)]) for tree, at in zip(trees, found, strict=True)]
    merged = union.tree(np.asarray(order), number)
    merged.children = next((t.children for t in trees if t.num_drafted), trees[0].children)
    merged.draft_passes = sum(tree.draft_passes for tree in trees)
    return merged, parts


@dataclass(slots=True)
class _Union:
    """Nodes in the order in which they are first met; `kept_by` and `seen_by` have a bit a tree."""

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depth: list[int] = field(default_factory=lambda: [0])
    rank: list[int] = field(default_factory=lambda: [0])
    logprob: list[float] = field(default_factory=lambda: [0.0])
    source: list[int] = field(default_factory=lambda: [int(Source.ROOT)])
    round_added: list[int] = field(default_factory=lambda: [0])
    round_pruned: list[int] = field(default_factory=lambda: [-1])
    kept_by: list[int] = field(default_factory=lambda: [0])
    seen_by: list[int] = field(default_factory=lambda: [0])
    by_path: dict[tuple[int, int], int] = field(default_factory=dict)  # (parent, token) -> node
    next_rank: list[int] = field(default_factory=lambda: [0])  # of a further child

    @classmethod
    def over(cls, tree: TokenTree) -> _Union:
        """Nothing but the root."""
        return cls([int(tree.tokens_M[0])])

    def take(self, which: int, tree: TokenTree) -> list[int]:
        """Add the tree of draft number `which`, pruned nodes too; the node each one became."""
        assert int(tree.tokens_M[0]) == self.tokens[0], "trees over different roots"
        bit, place = 1 << which, [0]
        rows = zip(
            tree.tokens_M.tolist(), tree.parents_M.tolist(), tree.rank_M.tolist(),
            tree.draft_logprob_M.tolist(), tree.source_M.tolist(),
            tree.round_added_M.tolist(), tree.round_pruned_M.tolist(), strict=True,
        )  # fmt: skip
        for own, (token, parent, rank, logprob, source, added, pruned) in enumerate(rows):
            if own == 0:
                continue
            above = place[parent]
            node = self.by_path.get((above, token))
            if node is None:
                node = self._new(above, token, rank if which == 0 else self.next_rank[above])
                self.logprob[node], self.source[node] = logprob, source
                self.round_added[node], self.round_pruned[node] = added, pruned
            else:
                self.logprob[node] = float(np.fmax(self.logprob[node], logprob))
                self.round_added[node] = min(self.round_added[node], added)
                self.round_pruned[node] = max(self.round_pruned[node], pruned)
            self.seen_by[node] |= bit
            if own < tree.num_nodes:
                self.kept_by[node] |= bit
            place.append(node)
        return place

    def _new(self, parent: int, token: int, rank: int) -> int:
        node = self.by_path[parent, token] = len(self.tokens)
        self.next_rank[parent] = max(self.next_rank[parent], rank + 1)
        self.tokens.append(token)
        self.parents.append(parent)
        self.depth.append(self.depth[parent] + 1)
        self.rank.append(rank)
        for column in (self.logprob, self.source, self.round_added, self.round_pruned):
            column.append(0)
        for masks in (self.kept_by, self.seen_by, self.next_rank):
            masks.append(0)
        return node

    def order(self) -> list[int]:
        """Scored nodes first, those of the first tree as they stand there; parents first."""
        nodes = range(1, len(self.tokens))
        first = [node for node in nodes if self.kept_by[node] & 1]
        others = [node for node in nodes if self.kept_by[node] and not self.kept_by[node] & 1]
        others.sort(key=lambda node: (self.depth[node], self.rank[node]))
        return [0, *first, *others, *(node for node in nodes if not self.kept_by[node])]

    def tree(self, order: np.ndarray, number: np.ndarray) -> TokenTree:
        """The nodes as a tree, in that order."""

        def column(values: list[Any], dtype: Any) -> np.ndarray:
            return np.asarray(values, dtype)[order]

        parents = column(self.parents, np.int32)
        parents[1:] = number[parents[1:]]
        kept_by, seen_by = column(self.kept_by, np.uint8), column(self.seen_by, np.uint8)
        num_nodes = 1 + int((kept_by > 0).sum())
        round_pruned = column(self.round_pruned, np.int16)
        round_pruned[:num_nodes] = -1
        return TokenTree(
            tokens_M=column(self.tokens, np.int64),
            parents_M=parents,
            depth_M=column(self.depth, np.int32),
            rank_M=column(self.rank, np.int32),
            draft_logprob_M=column(self.logprob, np.float32),
            source_M=column(self.source, np.uint8),
            round_added_M=column(self.round_added, np.int16),
            round_pruned_M=round_pruned,
            num_nodes=num_nodes,
            drafts_M=np.where(kept_by > 0, kept_by, seen_by),
        )
