"""How a dynamic tree grows. A policy sees one tree; passes of many requests run together.

Each is a generator: it yields nodes to expand, is sent a row of draft logits for each (none: it
is to stop there), and returns the nodes that stay. Path scores are sums of log-probabilities: no
child outscores its parent.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.drafters.model_drafter import Policy
from engine.growth import Chooser, Growth, Row

if TYPE_CHECKING:
    from engine.drafters.dynamic_tree import Options as Bounds


class GrowthPolicy(NamedTuple):
    """A policy, its most draft rows, and its form for SAMPLED children where it has one."""

    grow: Callable[[Bounds, Growth, Chooser, int], Policy]
    max_expanded: Callable[[Bounds], int]
    sampled: Callable[[Bounds, Growth, Chooser, int], Policy] | None = None

    @property
    def may_sample(self) -> bool:
        return self.sampled is not None


def _expand(
    growth: Growth, chooser: Chooser, nodes: Iterable[int], rows: list[Row], count: int
) -> list[int]:
    added: list[int] = []
    for node, row in zip(nodes, rows, strict=True):
        added += growth.add_children(node, *chooser.choose(growth, node, row, count))
    return added


def _best_of(growth: Growth, nodes: list[int], count: int) -> list[int]:
    """The `count` best of some nodes by path score, stably."""
    return sorted(nodes, key=lambda node: -growth.path_score[node])[:count]


def eagle2(bounds: Bounds, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """EAGLE-2 (2406.16858): each level's best `frontier` nodes propose; the best of all stay."""
    frontier = [0]
    for _ in range(max_depth):
        rows = yield frontier
        if not rows:
            break
        added = _expand(growth, chooser, frontier, rows, bounds.top_k)
        frontier = sorted(_best_of(growth, added, bounds.frontier))
    return growth.best(bounds.nodes)


def opt_tree(bounds: Bounds, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """OPT-Tree (2406.17276): the best n paths of all levels so far; stop when their sum stalls."""
    frontier, expected = [0], 0.0
    for _ in range(max_depth):
        rows = yield frontier
        if not rows:
            break
        _expand(growth, chooser, frontier, rows, bounds.top_k)
        chosen = growth.best(bounds.nodes)
        total = sum(math.exp(growth.path_score[node]) for node in chosen)
        deepest = growth.depth[-1]
        frontier = [node for node in chosen if growth.depth[node] == deepest]
        if not frontier or total - expected < bounds.threshold:
            break
        expected = total
    return growth.best(bounds.nodes)


def best_first(bounds: Bounds, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """Expand the best unexpanded nodes, `frontier` at a time, until the best n are settled."""
    open_nodes: list[tuple[float, int]] = [(0.0, 0)]
    for _ in range(bounds.depth):
        settled = growth.best(bounds.nodes)
        cut = (
            growth.path_score[_best_of(growth, settled, len(settled))[-1]] if settled else -math.inf
        )
        frontier: list[int] = []
        while open_nodes and len(frontier) < bounds.frontier:
            score, node = open_nodes[0]
            if len(settled) == bounds.nodes and -score <= cut and node != 0:
                break  # no child of it could enter the tree
            heapq.heappop(open_nodes)
            frontier.append(node)
        if not frontier:
            break
        rows = yield sorted(frontier)
        if not rows:
            break
        for child in _expand(growth, chooser, sorted(frontier), rows, bounds.top_k):
            if growth.depth[child] < max_depth:
                heapq.heappush(open_nodes, (-growth.path_score[child], child))
    return growth.best(bounds.nodes)


def grow_and_prune(bounds: Bounds, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """Rounds in which every unexpanded kept node proposes; the best n of old and new survive."""
    kept: list[int] = [0]
    expanded: set[int] = set()
    for number in range(bounds.rounds):
        frontier = [n for n in kept if n not in expanded and growth.depth[n] < max_depth]
        if not frontier:
            break
        rows = yield frontier
        if not rows:
            break
        count = 2 * bounds.top_k if number == 0 else bounds.top_k  # the root proposes most
        _expand(growth, chooser, frontier, rows, count)
        expanded.update(frontier)
        kept = growth.best(bounds.nodes)
    return growth.best(bounds.nodes)


def dyspec(bounds: Bounds, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """DySpec (2410.11744): a heap of sampling slots valued by the mass left; draws never dropped.

    A slot of an expanded node draws one more child; a slot of a node not yet run asks for a pass.
    Draws are fixed by (seed, request, position, node), so growth may look at them, not undo them.
    """
    heap: list[tuple[float, int]] = [(-1.0, 0)]  # (-value, node)
    reach = {0: 1.0}  # chance under the draft that a node is reached
    draws: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    passes = 0
    while heap and len(growth) - 1 < bounds.nodes:
        _, node = heapq.heappop(heap)
        if node not in draws:
            if passes == bounds.depth:
                continue
            waiting = sorted(item for item in heap if item[1] not in draws)[: bounds.frontier - 1]
            heap = [item for item in heap if item not in waiting]
            frontier = sorted([node, *(number for _, number in waiting)])
            rows = yield frontier
            if not rows:
                break
            passes += 1
            for number, row in zip(frontier, rows, strict=True):
                draws[number] = chooser.choose(growth, number, row, bounds.top_k)
                heap.append((-reach[number], number))
            heapq.heapify(heap)
            continue
        tokens, logprobs, scores = draws[node]
        made = growth.num_children[node]
        if made == len(tokens):
            continue
        one = slice(made, made + 1)
        (child,) = growth.add_children(node, tokens[one], logprobs[one], scores[one])
        reach[child] = reach[node] * math.exp(logprobs[made])
        if growth.depth[child] < max_depth:
            heapq.heappush(heap, (-reach[child], child))
        drawn = set(tokens[: made + 1].tolist())
        left = max(1.0 - sum(float(growth.draft_probs[node][token]) for token in drawn), 0.0)
        heapq.heappush(heap, (-reach[node] * left, node))
    for node in [n for n in growth.draft_probs if growth.num_children[n] == 0]:
        del growth.draft_probs[node]
    return None


POLICIES: dict[str, GrowthPolicy] = {
    "eagle2": GrowthPolicy(eagle2, lambda b: 1 + (b.depth - 1) * b.frontier),
    "opt-tree": GrowthPolicy(opt_tree, lambda b: 1 + (b.depth - 1) * b.nodes),
    "best-first": GrowthPolicy(
        best_first, lambda b: 1 + (b.depth - 1) * b.frontier, sampled=dyspec
    ),
    "grow-and-prune": GrowthPolicy(grow_and_prune, lambda b: 1 + (b.rounds - 1) * b.nodes),
}
