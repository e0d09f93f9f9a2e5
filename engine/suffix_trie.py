"""A counted trie of all suffixes up to a depth, and the likeliest continuations below a node.

Flat arrays and Numba: a token costs one walk over the suffixes that end with it, whatever the
text's length. Source: SuffixDecoding (Oliaro et al., 2411.04975), with a trie of bounded depth in
place of a compressed suffix tree: what matters is a lookup of tens of tokens, not the whole text.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numba import njit

_FIRST_CAPACITY = 4096


class Continuation(NamedTuple):
    """A tree of continuations: parents point at earlier entries, -1 at the match itself."""

    tokens_N: np.ndarray
    parents_N: np.ndarray
    probs_N: np.ndarray  # of the node given its parent, by counts
    score: float  # expected accepted tokens: the sum of the path probabilities


class SuffixTrie:
    """Every run of up to `depth` tokens that was added, with how often it occurred."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._num_nodes = np.ones(1, np.int64)  # node 0 is the root
        self._nodes = _empty_nodes(_FIRST_CAPACITY)
        self._table = _empty_table(_FIRST_CAPACITY)

    def __len__(self) -> int:
        return int(self._num_nodes[0])

    def start(self) -> np.ndarray:
        """A place to add from or to follow along: nodes of the suffixes so far, by length."""
        return np.full(self.depth, -1, np.int64)

    def add(self, tokens: list[int], place: np.ndarray) -> None:
        """Add tokens behind `place`, which moves on with them."""
        if not tokens:
            return
        self._reserve(len(tokens) * self.depth)
        _add(np.asarray(tokens, np.int64), place, self._nodes, self._table, self._num_nodes)

    def follow(self, tokens: list[int], place: np.ndarray) -> None:
        """Move `place` along tokens without adding them."""
        if tokens:
            _follow(np.asarray(tokens, np.int64), place, self._nodes, self._table)

    def continuation(
        self,
        place: np.ndarray,
        *,
        own: bool,
        factor: float,
        offset: float,
        most: int,
        max_depth: int,
        min_prob: float,
    ) -> Continuation | None:
        """The best-scoring continuation over all match lengths at `place`, None without any.

        A match of n tokens may draft min(most, factor * n + offset) nodes of path probability
        `min_prob` or more. `own`: the text at `place` was itself added, so that each match counts
        its unfinished occurrence at the end, which must not.
        """
        best: Continuation | None = None
        for length in range(1, self.depth):
            node = place[length - 1]
            if node < 0:
                break
            budget = min(most, int(factor * length + offset))
            if budget < 1:
                continue
            found = Continuation(
                *_grow(node, self._nodes, budget, max_depth, min_prob, 1 if own else 0)
            )
            if len(found.tokens_N) and (best is None or found.score >= best.score):
                best = found
        return best

    def _reserve(self, count: int) -> None:
        """Room for `count` more nodes."""
        needed = len(self) + count
        capacity = self._nodes.shape[1]
        if needed <= capacity:
            return
        while capacity < needed:
            capacity *= 2
        nodes = _empty_nodes(capacity)
        nodes[:, : len(self)] = self._nodes[:, : len(self)]
        self._nodes, self._table = nodes, _empty_table(capacity)
        _rehash(self._nodes, len(self), self._table)


#: rows of the node array
_TOKEN, _COUNT, _CHILD, _SIBLING, _PARENT = range(5)


def _empty_nodes(capacity: int) -> np.ndarray:
    nodes = np.full((5, capacity), -1, np.int64)
    nodes[_COUNT] = 0
    return nodes


def _empty_table(capacity: int) -> np.ndarray:
    """Open addressing, at most half full."""
    return np.full(2 * capacity, -1, np.int64)


@njit(cache=True)
def _slot(parent: int, token: int, nodes: np.ndarray, table: np.ndarray) -> int:
    """Where the child of `parent` stands in the table, or would."""
    mask = len(table) - 1  # a power of two
    key = (parent * 1_000_003 + token) * 2_654_435_761
    at = (key ^ (key >> 15)) & mask
    while True:
        node = table[at]
        if node < 0 or (nodes[_PARENT, node] == parent and nodes[_TOKEN, node] == token):
            return at
        at = (at + 1) & mask


@njit(cache=True)
def _rehash(nodes: np.ndarray, num_nodes: int, table: np.ndarray) -> None:
    for node in range(1, num_nodes):
        table[_slot(nodes[_PARENT, node], nodes[_TOKEN, node], nodes, table)] = node


@njit(cache=True)
def _add(
    tokens: np.ndarray,
    place: np.ndarray,
    nodes: np.ndarray,
    table: np.ndarray,
    num_nodes: np.ndarray,
) -> None:
    for token in tokens:
        nodes[_COUNT, 0] += 1
        for length in range(len(place), 0, -1):  # longest first: each reads the one before it
            parent = 0 if length == 1 else place[length - 2]
            if parent < 0:
                place[length - 1] = -1
                continue
            at = _slot(parent, token, nodes, table)
            node = table[at]
            if node < 0:
                node = num_nodes[0]
                num_nodes[0] += 1
                nodes[_TOKEN, node] = token
                nodes[_PARENT, node] = parent
                nodes[_SIBLING, node] = nodes[_CHILD, parent]
                nodes[_CHILD, parent] = node
                table[at] = node
            nodes[_COUNT, node] += 1
            place[length - 1] = node


@njit(cache=True)
def _follow(tokens: np.ndarray, place: np.ndarray, nodes: np.ndarray, table: np.ndarray) -> None:
    for token in tokens:
        for length in range(len(place), 0, -1):
            parent = 0 if length == 1 else place[length - 2]
            place[length - 1] = -1 if parent < 0 else table[_slot(parent, token, nodes, table)]


@njit(cache=True)
def _grow(
    match: int, nodes: np.ndarray, budget: int, max_depth: int, min_prob: float, unfinished: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Best-first below a match: a heap over the product of count(child) / count(parent)."""
    tokens = np.empty(budget, np.int64)
    parents = np.empty(budget, np.int64)
    probs = np.empty(budget, np.float64)
    taken, score = 0, 0.0
    # path probability (negative: the heap gives the least), node, its entry's parent, depth, prob
    heap = [(-1.0, np.int64(match), np.int64(-1), np.int64(0), 1.0)]
    while heap and taken < budget:
        path, node, parent, depth, prob = heappop(heap)
        entry = np.int64(-1)
        if depth > 0:
            entry = np.int64(taken)
            tokens[taken] = nodes[_TOKEN, node]
            parents[taken] = parent
            probs[taken] = prob
            score -= path
            taken += 1
        if depth >= max_depth:
            continue
        total = nodes[_COUNT, node] - (unfinished if depth == 0 else 0)
        child = nodes[_CHILD, node]
        while child >= 0:
            share = min(1.0, nodes[_COUNT, child] / max(total, 1))
            if -path * share >= min_prob:
                heappush(heap, (path * share, np.int64(child), entry, depth + 1, share))
            child = nodes[_SIBLING, child]
    return tokens[:taken], parents[:taken], probs[:taken], score
