"""Static tree shapes: expansion vectors, rank paths, the optimal tree for measured acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit

from engine.errors import UserError

MAX_STATIC_NODES = 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """Parents and sibling ranks of a tree's nodes, level by level; node 0 is the root."""

    parents_N: tuple[int, ...]
    rank_N: tuple[int, ...]

    @property
    def num_nodes(self) -> int:
        return len(self.parents_N)

    def depths(self) -> list[int]:
        """Depth of each node."""
        depth = [0]
        for parent in self.parents_N[1:]:
            depth.append(depth[parent] + 1)
        return depth


@lru_cache(maxsize=64)
def from_expansion(text: str) -> Shape:
    """SpecInfer's <k1,...,km>: every node at depth i-1 gets k_i children (2305.09781).

    Raises UserError where the vector is malformed or the tree too large.
    """
    try:
        counts = [int(part) for part in text.strip().strip("<>").split(",")]
    except ValueError:
        counts = []
    if not counts or any(count < 1 for count in counts):
        raise UserError(
            f"Expansion vector {text!r} is malformed; give the children per level, such as 2,2,1."
        )
    if sum(np.cumprod(np.array(counts, float))) + 1 > MAX_STATIC_NODES:
        raise UserError(f"Expansion vector {text} has more than {MAX_STATIC_NODES} nodes.")
    parents, ranks, level = [-1], [0], [0]
    for count in counts:
        following = []
        for parent in level:
            for rank in range(count):
                following.append(len(parents))
                parents.append(parent)
                ranks.append(rank)
        level = following
    return Shape(tuple(parents), tuple(ranks))


@lru_cache(maxsize=64)
def from_paths(text: str) -> Shape:
    """Medusa-style rank paths, such as `0;0.0;1`: the node at rank 1 under the root, and so on.

    Prefixes that are not listed are added; ranks need not be contiguous: a rank is which choice of
    the draft stands there. Raises UserError.
    """
    paths: set[tuple[int, ...]] = set()
    for part in text.replace(" ", "").strip(";").split(";"):
        try:
            path = tuple(int(rank) for rank in part.split("."))
        except ValueError:
            path = (-1,)
        if any(rank < 0 for rank in path):
            raise UserError(
                f"Path {part!r} is malformed; give ranks like 0.0.1, paths joined by ';'."
            )
        paths.update(path[:end] for end in range(1, len(path) + 1))
    ordered = sorted(paths, key=lambda path: (len(path), path))
    if len(ordered) + 1 > MAX_STATIC_NODES:
        raise UserError(f"{len(ordered)} paths are more than {MAX_STATIC_NODES} nodes.")
    number: dict[tuple[int, ...], int] = {(): 0}
    parents, ranks = [-1], [0]
    for path in ordered:
        number[path] = len(parents)
        parents.append(number[path[:-1]])
        ranks.append(path[-1])
    return Shape(tuple(parents), tuple(ranks))


def parse_acceptance(text: str) -> tuple[float, ...]:
    """Marginal acceptance by rank, such as `0.62,0.14,0.05`. Raises UserError."""
    try:
        vector = tuple(float(part) for part in text.split(","))
    except ValueError:
        vector = (-1.0,)
    if any(not 0.0 <= p <= 1.0 for p in vector) or sum(vector) > 1.0 + 1e-6:
        raise UserError(
            f"Acceptance vector {text!r} is malformed; give the chance that the child of each rank"
            " is the accepted one, such as 0.62,0.14,0.05 (they sum to 1 at most)."
        )
    return vector


@lru_cache(maxsize=64)
def optimal(acceptance: tuple[float, ...], num_nodes: int, max_depth: int) -> Shape:
    """The tree of at most `num_nodes` nodes and depth `max_depth` that emits most tokens.

    Sequoia's dynamic program (2402.12374, section 3.1) over the marginal acceptance vector.
    """
    p = np.asarray(acceptance, np.float64)
    best, split, best_rank = _optimal_table(p, num_nodes, max_depth + 1)
    parents, ranks = [-1], [0]
    queue = [(0, int(best[:, max_depth + 1].argmax()), max_depth + 1)]
    while queue:
        node, size, levels = queue.pop(0)
        rank = int(best_rank[size, levels])
        children = []
        while rank > 0 and size > 1:
            rest = int(split[size, levels, rank])
            children.append((rank - 1, size - rest))
            size, rank = rest, rank - 1
        for child_rank, child_size in reversed(children):
            parents.append(node)
            ranks.append(child_rank)
            queue.append((len(parents) - 1, child_size, levels - 1))
    return Shape(tuple(parents), tuple(ranks))


def expected_tokens(shape: Shape, acceptance: tuple[float, ...]) -> float:
    """Tokens per step the shape brings if every parent accepts by the same marginal vector."""
    reach = [1.0]
    for parent, rank in zip(shape.parents_N[1:], shape.rank_N[1:], strict=True):
        chance = acceptance[rank] if rank < len(acceptance) else 0.0
        reach.append(reach[parent] * chance)
    return sum(reach)


@njit(cache=True)
def _optimal_table(
    p: np.ndarray, num_nodes: int, levels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T[m, l, b]: most expected tokens of m nodes in at most l levels, the root having b children.

    Returns max over b (m, l); y, the nodes left to the root and its first b-1 children (m, l, b);
    and the b of that maximum (m, l).
    """
    num_ranks = min(len(p), num_nodes - 1) if num_nodes > 1 else 0
    table = np.full((num_nodes + 1, levels + 1, num_ranks + 1), -np.inf)
    split = np.zeros((num_nodes + 1, levels + 1, num_ranks + 1), np.int64)
    best = np.full((num_nodes + 1, levels + 1), -np.inf)
    best_rank = np.zeros((num_nodes + 1, levels + 1), np.int64)
    for level in range(1, levels + 1):
        table[1, level, 0] = 1.0
        best[1, level] = 1.0
    for size in range(2, num_nodes + 1):
        for level in range(2, levels + 1):
            for b in range(1, num_ranks + 1):
                for y in range(1, size):
                    value = table[y, level, b - 1] + p[b - 1] * best[size - y, level - 1]
                    if value > table[size, level, b]:
                        table[size, level, b] = value
                        split[size, level, b] = y
            for b in range(num_ranks + 1):
                if table[size, level, b] > best[size, level]:
                    best[size, level] = table[size, level, b]
                    best_rank[size, level] = b
    return best, split, best_rank
