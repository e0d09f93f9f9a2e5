"""Trees for drafts that guess every depth by itself: which rank paths are worth their nodes.

A head of Medusa (2401.10774) guesses the token so many places ahead without knowing those between,
so a node's chance is the product of its ranks' accuracies, each at its depth.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np

from engine.errors import UserError
from engine.shapes import Shape, from_paths

#: accuracies by depth, then by rank: the chance that the guess of that rank is the right one
Accuracies = tuple[tuple[float, ...], ...]

#: children of each path in the tree of 63 nodes that Medusa's authors publish for Vicuna 7B
#: (`mc_sim_7b_63`); ranks have no gaps there
_PUBLISHED = {
    "": 10, "0": 10, "1": 7, "2": 3, "3": 2, "4": 1, "5": 1, "6": 1, "7": 1, "8": 1, "9": 1,
    "0.0": 10, "0.1": 3, "0.2": 2, "0.3": 1, "0.4": 1, "0.5": 1, "0.6": 1, "0.7": 1, "1.0": 2,
    "2.0": 1, "0.0.0": 2,
}  # fmt: skip


class RankTree(NamedTuple):
    """Nodes in the order of their worth, parents first: every beginning of it is a tree."""

    parents_N: np.ndarray  # int32, -1 at the root
    rank_N: np.ndarray  # int32, which guess of its depth stands there
    depth_N: np.ndarray  # int32, 0 at the root

    @property
    def num_nodes(self) -> int:
        return len(self.parents_N)

    def up_to(self, depth: int) -> RankTree:
        """The tree without its deeper nodes."""
        kept = self.depth_N <= depth
        number = np.cumsum(kept, dtype=np.int32) - 1
        parents_N = self.parents_N[kept]
        parents_N[1:] = number[parents_N[1:]]
        return RankTree(parents_N, self.rank_N[kept], self.depth_N[kept])


def published() -> Shape:
    """The tree that Medusa's authors publish: 63 nodes and the root, four deep."""
    paths = [
        f"{path}.{rank}".strip(".") for path, kids in _PUBLISHED.items() for rank in range(kids)
    ]
    return from_paths(";".join(paths))


@lru_cache(maxsize=64)
def best(accuracies: Accuracies, num_nodes: int) -> RankTree:
    """The tree of at most `num_nodes` nodes, root included, that emits most tokens.

    Worth only falls along a path, so the worthiest nodes are a tree (2401.10774, section 2.3.3,
    where they are found one by one in the same way). Those that are never right are left out.
    """
    ordered = [np.argsort([-chance for chance in level], kind="stable") for level in accuracies]
    parents, ranks, depths = [-1], [0], [0]
    place = count()  # of equals, those found first, which are no deeper
    waiting: list[tuple[float, int, int, int, int]] = []  # -worth, place, parent, depth, choice

    def offer(parent: int, worth: float, depth: int, choice: int) -> None:
        """The node of this place under `parent`, which is worth `worth`."""
        if depth < len(ordered) and choice < len(ordered[depth]):
            chance = worth * accuracies[depth][ordered[depth][choice]]
            if chance > 0.0:
                heapq.heappush(waiting, (-chance, next(place), parent, depth, choice))

    worths = [1.0]
    offer(0, 1.0, 0, 0)
    while waiting and len(parents) < num_nodes:
        negative, _, parent, depth, choice = heapq.heappop(waiting)
        parents.append(parent)
        ranks.append(int(ordered[depth][choice]))
        depths.append(depth + 1)
        worths.append(-negative)
        offer(parent, worths[parent], depth, choice + 1)
        offer(len(parents) - 1, -negative, depth + 1, 0)
    return _arrays(parents, ranks, depths)


@lru_cache(maxsize=64)
def by_worth(shape: Shape, accuracies: Accuracies) -> RankTree:
    """The nodes of a shape, the worthiest first; of equals, the shallower."""
    depths, worths = shape.depths(), [1.0]
    for node in range(1, shape.num_nodes):
        level, rank = accuracies[depths[node] - 1 :][:1], shape.rank_N[node]
        chance = level[0][rank] if level and rank < len(level[0]) else 0.0
        worths.append(worths[shape.parents_N[node]] * chance)
    order = sorted(range(shape.num_nodes), key=lambda node: (-worths[node], depths[node], node))
    number = {node: at for at, node in enumerate(order)}
    parents = [-1] + [number[shape.parents_N[node]] for node in order[1:]]
    return _arrays(parents, [shape.rank_N[n] for n in order], [depths[n] for n in order])


def expected_tokens(tree: RankTree, accuracies: Accuracies) -> float:
    """Tokens per step that the tree brings where its guesses are right as often as that."""
    worths = [1.0]
    for parent, rank, depth in zip(*(each[1:].tolist() for each in tree), strict=True):
        level = accuracies[depth - 1] if depth <= len(accuracies) else ()
        worths.append(worths[parent] * (level[rank] if rank < len(level) else 0.0))
    return sum(worths)


def parse_accuracies(text: str) -> Accuracies:
    """Accuracies by depth and rank, such as `0.5,0.1;0.3,0.1`. Raises UserError."""
    levels = []
    for part in text.replace(" ", "").split(";"):
        try:
            level = tuple(float(chance) for chance in part.split(","))
        except ValueError:
            level = (-1.0,)
        if any(not 0.0 <= chance <= 1.0 for chance in level):
            raise UserError(
                f"Acceptance {text!r} is malformed; give the chance that the guess of each rank is"
                " right, ranks joined by ',' and depths by ';', such as 0.5,0.1;0.3,0.1."
            )
        levels.append(level)
    return tuple(levels)


def _arrays(parents: list[int], ranks: list[int], depths: list[int]) -> RankTree:
    return RankTree(*(np.asarray(each, np.int32) for each in (parents, ranks, depths)))
