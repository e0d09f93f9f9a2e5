"""A draft tree while it grows, and how a node's children are chosen from draft logits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cuda_ext.frontier import top_of_row
from engine.sampling import Sampling, Stream, generator, gumbel, warp
from engine.tree import Children, Source, TokenTree

#: pruned nodes kept for the viewer, best first
MAX_PRUNED_KEPT = 64
FEW = 8
#: children from which on compiled code finds them quicker; fewer are so many maxima to NumPy
COMPILED_FROM = 5
#: positions that a table of noise has room for at first: a small tree's
_FIRST_ROWS = 8


class Noise:
    """The target's Gumbel noise of one request by position; drafting and verifying share it.

    Kept in a table that positions go round in, so that kernels can be handed all of it.
    """

    def __init__(self, sampling: Sampling, *, request: int, vocab_size: int) -> None:
        self.sampling = sampling
        self.request = request
        self.vocab_size = vocab_size
        self.table_DV = np.empty((0, vocab_size))  # float64
        self._position_D = np.empty(0, np.int64)  # position that a row holds, -1: none
        self.floor = 0  # earlier positions are not asked for again

    def at(self, position: int) -> np.ndarray:
        """Noise g_V for the token at `position` of the sequence, prompt included."""
        row = self.row(position)  # may replace the table
        return self.table_DV[row]

    def row(self, position: int) -> int:
        """The row of `table_DV` with the noise of a position; it stays until that is forgotten."""
        while True:
            size = len(self._position_D)
            if size:
                row = position % size
                held = int(self._position_D[row])
                if held == position:
                    return row
                if held < self.floor:
                    break
            self._grow(max(2 * size, _FIRST_ROWS))
        self.table_DV[row] = gumbel(
            self.sampling, request=self.request, position=position, vocab_size=self.vocab_size
        )
        self._position_D[row] = position
        return row

    def _grow(self, size: int) -> None:
        table_DV, position_D = self.table_DV, self._position_D
        self.table_DV = np.empty((size, self.vocab_size))
        self._position_D = np.full(size, -1, np.int64)
        for row, position in enumerate(position_D.tolist()):
            if position >= self.floor:
                self.table_DV[position % size] = table_DV[row]
                self._position_D[position % size] = position

    def forget_before(self, position: int) -> None:
        """No later step asks for what is before it."""
        self.floor = max(self.floor, position)


class Candidates(NamedTuple):
    """The likeliest tokens after one node, best first."""

    tokens_K: np.ndarray  # int64
    logprobs_K: np.ndarray  # log q
    scores_K: np.ndarray  # what policies rank by


@dataclass(slots=True)
class Row:
    """What a draft pass says of the tokens after one node: logits on the host.

    `engine/device_candidates.py` has rows that stay on a GPU: there `logits_V` is a costly copy.
    """

    logits_V: np.ndarray
    log_norm: float  # their logsumexp

    def likeliest(self, count: int, *, kernels: bool = True) -> Candidates:
        """Up to `count` FIXED children."""
        find = top_k_compiled if kernels and count >= COMPILED_FROM else top_k
        tokens, logprobs = find(self.logits_V, count, self.log_norm)
        return Candidates(tokens, logprobs, logprobs)

    def coupled(self, count: int, *, chooser: Chooser, position: int) -> Candidates:
        """Up to `count` COUPLED children, which stand at `position`."""
        find = top_k_compiled if chooser.kernels and count >= COMPILED_FROM else top_k
        log_q = warp(self.logits_V, chooser.sampling)  # as the target's will be
        perturbed = log_q + chooser.noise.at(position)
        tokens, scores = find(perturbed, count, logsumexp(perturbed))
        return Candidates(tokens, log_q[tokens], scores)


@dataclass(slots=True)
class Chooser:
    """Chooses children of nodes of one request's tree.

    `position` is that of the root's child: a node at depth d has children at position + d.
    """

    kind: Children
    sampling: Sampling
    noise: Noise
    position: int
    with_replacement: bool = True  # SAMPLED: i.i.d. draws (rule 2) or distinct ones (rule 3)
    kernels: bool = True  # whether compiled code looks for the best tokens; it finds the same

    def choose(self, growth: Growth, node: int, row: Row, count: int) -> Candidates:
        """Up to `count` children of a node.

        A COUPLED child's score is its share of exp(log q + g): the noise is known, so the token
        it favours is the likelier one to be the target's choice.
        """
        position = self.position + growth.depth[node]
        if self.kind is Children.FIXED:
            return row.likeliest(count, kernels=self.kernels)
        if self.kind is Children.COUPLED:
            return row.coupled(count, chooser=self, position=position)
        log_q = warp(row.logits_V, self.sampling)
        q = np.exp(log_q)
        growth.draft_probs[node] = q
        draws = generator(
            self.sampling,
            request=self.noise.request,
            position=position,
            stream=Stream.DRAFT,
            root=self.position,
            node=node,
        )
        if self.with_replacement:
            tokens = draws.choice(len(q), size=count, p=q)
        else:
            count = min(count, int((q > 0).sum()))
            tokens = draws.choice(len(q), size=count, p=q, replace=False)
        return Candidates(tokens, log_q[tokens], log_q[tokens])


@dataclass(slots=True)
class Growth:
    """Columns of a tree under construction; node 0 is the root."""

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depth: list[int] = field(default_factory=lambda: [0])
    rank: list[int] = field(default_factory=lambda: [0])
    logprob: list[float] = field(default_factory=lambda: [0.0])
    path_score: list[float] = field(default_factory=lambda: [0.0])  # sums along the path
    round_added: list[int] = field(default_factory=lambda: [0])
    num_children: list[int] = field(default_factory=lambda: [0])
    row: list[int] = field(default_factory=lambda: [-1])  # draft cache row, -1: never run
    source: list[int] = field(default_factory=lambda: [Source.ROOT])
    draft_probs: dict[int, np.ndarray] = field(default_factory=dict)
    round: int = 0
    passes: int = 0
    #: most nodes that may stay, where a scheduler says so
    budget: int | None = None
    #: tokens that the tree is expected to bring; NaN: nobody expects anything
    expected: float = math.nan

    def __len__(self) -> int:
        return len(self.tokens)

    def add_children(
        self, node: int, tokens: np.ndarray, logprobs: np.ndarray, scores: np.ndarray
    ) -> list[int]:
        """Append children in the order given; returns their numbers."""
        first = len(self.tokens)
        depth, score = self.depth[node] + 1, self.path_score[node]
        for token, logprob, own in zip(
            tokens.tolist(), logprobs.tolist(), scores.tolist(), strict=True
        ):
            self.tokens.append(token)
            self.parents.append(node)
            self.depth.append(depth)
            self.rank.append(self.num_children[node])
            self.logprob.append(logprob)
            self.path_score.append(score + min(own, 0.0))
            self.round_added.append(self.round)
            self.num_children.append(0)
            self.row.append(-1)
            self.source.append(Source.DRAFT)
            self.num_children[node] += 1
        return list(range(first, len(self.tokens)))

    def best(self, count: int) -> list[int]:
        """The `count` nodes of best path score besides the root, in order of their numbers.

        Ancestor-closed: a child never outscores its parent, and ties keep parents first.
        """
        scores = -np.asarray(self.path_score[1:])
        order = np.argsort(scores, kind="stable")[:count] + 1
        return sorted(order.tolist())

    def finish(self, kind: Children, kept: list[int] | None = None) -> tuple[TokenTree, list[int]]:
        """The tree, and the draft cache row of each of its nodes.

        `kept` lists the nodes that stay besides the root (None: all).
        """
        total = len(self.tokens)
        if kept is None or len(kept) == total - 1:
            order, num_nodes = list(range(total)), total
        else:
            staying = set(kept)
            pruned = [n for n in range(1, total) if n not in staying]
            pruned = sorted(pruned, key=lambda n: -self.path_score[n])[:MAX_PRUNED_KEPT]
            order, num_nodes = self._with_known_parents(sorted(kept), sorted(pruned))
        return self._assemble(order, num_nodes, kind), [self.row[n] for n in order]

    def _with_known_parents(self, kept: list[int], pruned: list[int]) -> tuple[list[int], int]:
        known = {0, *kept}
        shown = []
        for node in pruned:  # a pruned node whose parent is not shown cannot be drawn
            if self.parents[node] in known:
                known.add(node)
                shown.append(node)
        return [0, *kept, *shown], 1 + len(kept)

    def _assemble(self, order: list[int], num_nodes: int, kind: Children) -> TokenTree:
        at = np.asarray(order)
        parents = np.asarray(self.parents, np.int32)[at]
        if num_nodes < len(self.tokens):
            new = np.full(len(self.tokens), -1, np.int32)
            new[at] = np.arange(len(order), dtype=np.int32)
            parents[1:] = new[parents[1:]]
        round_pruned = np.full(len(order), -1, np.int16)
        round_pruned[num_nodes:] = self.round
        return TokenTree(
            tokens_M=np.asarray(self.tokens, np.int64)[at],
            parents_M=parents,
            depth_M=np.asarray(self.depth, np.int32)[at],
            rank_M=np.asarray(self.rank, np.int32)[at],
            draft_logprob_M=np.asarray(self.logprob, np.float32)[at],
            source_M=np.asarray(self.source, np.uint8)[at],
            round_added_M=np.asarray(self.round_added, np.int16)[at],
            round_pruned_M=round_pruned,
            num_nodes=num_nodes,
            children=kind,
            draft_probs=self.draft_probs,
            draft_passes=self.passes,
            expected_tokens=self.expected,
        )


def logsumexp(scores_V: np.ndarray) -> float:
    """log sum exp of one row."""
    top = scores_V.max()
    return float(top + np.log(np.exp(scores_V - top).sum()))


def top_k(scores_V: np.ndarray, count: int, log_norm: float) -> tuple[np.ndarray, np.ndarray]:
    """The `count` best tokens, best first (ties: lower id), and their scores less `log_norm`.

    Fewer where the others have a score of -inf.
    """
    count = min(count, len(scores_V))
    if count <= FEW:  # a maximum at a time beats a partition
        rest = scores_V if count == 1 else scores_V.copy()
        tokens, found = np.empty(count, np.int64), np.empty(count, scores_V.dtype)
        for i in range(count):
            tokens[i] = best = int(rest.argmax())
            found[i] = rest[best]  # -inf where none is left, whatever token that is
            if i + 1 < count:
                rest[best] = -np.inf
    else:
        last = np.partition(scores_V, len(scores_V) - count)[len(scores_V) - count]
        above = np.flatnonzero(scores_V > last)
        tokens = np.append(above, np.flatnonzero(scores_V == last)[: count - len(above)])
        tokens = tokens[np.lexsort((tokens, -scores_V[tokens]))]
        found = scores_V[tokens]
    scores = found - log_norm
    if not scores[-1] > -np.inf:
        there = scores > -np.inf
        return tokens[there], scores[there]
    return tokens, scores


def top_k_compiled(
    scores_V: np.ndarray, count: int, log_norm: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same in one pass over the row, by the twin of `cuda_ext.frontier.top_children`."""
    count = min(count, len(scores_V))
    tokens, best = np.empty(count, np.int64), np.empty(count)
    tokens = tokens[: top_of_row(scores_V, tokens, best)]
    return tokens, scores_V[tokens] - log_norm


def to_width(logits_FV: np.ndarray, vocab_size: int) -> np.ndarray:
    """Cut or pad to the target's vocabulary: families pad theirs to different sizes."""
    missing = vocab_size - logits_FV.shape[1]
    if missing == 0:
        return logits_FV
    if missing < 0:
        return logits_FV[:, :vocab_size]
    return np.pad(logits_FV, ((0, 0), (0, missing)), constant_values=-np.inf)
