"""Static trees to compare: as text, presets, a run's own, and the best for its ranks and times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.errors import UserError
from engine.shapes import Shape, expected_tokens, from_expansion, from_paths, optimal
from workbench.store.reader import RunReader
from workbench.whatif.ranks import UNKNOWN, RunRanks
from workbench.whatif.times import PassTimes

PRESETS = {
    "chain of 4": "1,1,1,1",
    "2,2,1,1": "2,2,1,1",
    "4,2,1": "4,2,1",
    "binary, 3 levels": "2,2,2",
    "3-ary, 2 levels": "3,3",
    "SpecInfer": "1,1,3,1,1,1,1,1",
}
#: ranks beyond this are not worth a node in any tree we offer
MOST_RANKS = 16
DEEPEST = 10
MOST_NODES = 48
_SAME_EVERY_STEP = ("static-tree", "speculative")


class Named(NamedTuple):
    """A tree and what to call it."""

    name: str
    shape: Shape


def paths_text(shape: Shape) -> str:
    """The shape as `--option paths=` takes it: only leaves, since prefixes are implied."""
    paths: list[tuple[int, ...]] = [()]
    parents = set(shape.parents_N)
    for parent, rank in zip(shape.parents_N[1:], shape.rank_N[1:], strict=True):
        paths.append((*paths[parent], rank))
    return ";".join(
        ".".join(map(str, path)) for node, path in enumerate(paths) if node and node not in parents
    )


def shape_from(paths: Sequence[Sequence[int]]) -> Shape:
    """From rank paths such as [[0], [0, 0], [1]]. Raises UserError."""
    return from_paths(";".join(".".join(str(int(rank)) for rank in path) for path in paths))


def ordered(shape: Shape) -> Shape:
    """The same tree with its nodes level by level and siblings by rank."""
    text = paths_text(shape)
    return from_paths(text) if text else shape


def presets() -> list[Named]:
    """Trees that people know."""
    return [Named(name, from_expansion(text)) for name, text in PRESETS.items()]


def own_shape(reader: RunReader) -> Shape | None:
    """The run's own tree where its method grows the same one in every step.

    It is the largest that was recorded: near the end of a text trees are cut.
    """
    if reader.info.spec.method not in _SAME_EVERY_STEP:
        return None
    largest = reader.query(
        """SELECT parent, rank FROM node JOIN (SELECT request, "repeat", step FROM step
        ORDER BY num_drafted DESC, "repeat", request, step LIMIT 1) USING (request, "repeat", step)
        WHERE fate <> 'pruned' ORDER BY node"""
    )
    if len(largest) < 2:
        return None
    return ordered(Shape(tuple(largest["parent"].tolist()), tuple(largest["rank"].tolist())))


def acceptance_vector(ranks: RunRanks) -> tuple[float, ...]:
    """Marginal acceptance by rank: of the positions whose rank is known, the share at each.

    Where some are unknown it leans towards what the run itself proposed and accepted; unknown
    positions with excluded ranks count as tested and not accepted there.
    """
    counts = np.zeros(MOST_RANKS)
    tested = np.zeros(MOST_RANKS)
    for request in ranks.requests:
        known = request.rank_L[request.rank_L != UNKNOWN]
        counts += np.bincount(known[known < MOST_RANKS], minlength=MOST_RANKS)
        tested += len(known)
        for no in request.excluded.values():
            tested[[rank for rank in no if rank < MOST_RANKS]] += 1
    share = np.divide(counts, tested, out=np.zeros(MOST_RANKS), where=tested > 0)
    share /= max(1.0, share.sum())
    last = int(np.flatnonzero(share)[-1]) + 1 if share.any() else 0
    return tuple(float(p) for p in share[:last])


def optimal_for(vector: tuple[float, ...], num_nodes: int, times: PassTimes | None = None) -> Shape:
    """The tree of `num_nodes` drafted nodes that emits most tokens (Sequoia's dynamic program).

    With measured times, of its optima by depth the one of most expected tokens per second: a
    deeper tree takes more draft passes. Raises UserError for an empty vector.
    """
    depths = range(1, min(DEEPEST, num_nodes) + 1)
    found = [_at_depth(vector, num_nodes, depth) for depth in depths]
    largest = max(shape.num_nodes for shape in found)  # few ranks fill few nodes at small depth
    found = [shape for shape in found if shape.num_nodes == largest]
    if times is None or not times.known:
        return max(found, key=lambda shape: expected_tokens(shape, vector))
    return max(found, key=lambda shape: expected_tokens(shape, vector) / times.step(shape).ms)


def fastest(vector: tuple[float, ...], times: PassTimes) -> Shape | None:
    """Of all optimal trees by nodes and depth, that of most expected tokens per second.

    None where not drafting at all is expected to be faster, or no times are known.
    """
    if not times.known or not vector:
        return None
    best, best_speed = None, 1.0 / times.plain
    for shape in _candidates(vector):
        speed = expected_tokens(shape, vector) / times.step(shape).ms
        if speed > best_speed:
            best, best_speed = shape, speed
    return best


def _candidates(vector: tuple[float, ...]) -> Iterator[Shape]:
    for num_nodes in range(1, MOST_NODES + 1):
        for depth in range(1, min(DEEPEST, num_nodes) + 1):
            yield _at_depth(vector, num_nodes, depth)


def _at_depth(vector: tuple[float, ...], num_nodes: int, depth: int) -> Shape:
    if not vector:
        raise UserError(
            "No drafted token was accepted on this run, or its draft's ranks are unknown; there is "
            "nothing to find the best tree from."
        )
    return ordered(optimal(vector, num_nodes + 1, depth))
