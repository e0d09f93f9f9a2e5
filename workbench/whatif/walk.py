"""Walking a static tree over true ranks: what it would have accepted, step by step.

Where a rank is unknown, both outcomes are followed: `low` takes the course of most steps, `high`
that of fewest. Along one course every position is tested once, so both bounds can be met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from engine.shapes import Shape
from workbench.whatif.ranks import UNKNOWN, RequestRanks


@dataclass(frozen=True, slots=True)
class Course:
    """One course of a request: nodes accepted in each step."""

    starts_S: list[int]  # output position of each step's first token
    accepted_S: list[int]

    @property
    def num_steps(self) -> int:
        return len(self.accepted_S)

    @property
    def emitted(self) -> int:
        """Accepted tokens and one bonus or correction in every step."""
        return sum(self.accepted_S) + self.num_steps


@dataclass(frozen=True, slots=True)
class Walk:
    """Both bounds of one request; they are one course where `exact`."""

    low: Course
    high: Course
    exact: bool


@lru_cache(maxsize=256)
def children_by_rank(shape: Shape) -> list[dict[int, int]]:
    """For each node, its children by their rank."""
    kids: list[dict[int, int]] = [{} for _ in shape.parents_N]
    for node in range(1, shape.num_nodes):
        kids[shape.parents_N[node]][shape.rank_N[node]] = node
    return kids


def possible_accepts(kids: list[dict[int, int]], ranks: RequestRanks, start: int) -> list[int]:
    """How many nodes a step from `start` may accept; one number where the ranks decide."""
    length, cap = len(ranks.rank_L), ranks.limit - start - 1
    states, depth = [0], 0
    found: list[int] = []
    while True:
        at = start + depth
        if depth >= cap or at >= length:
            return [*found, depth]
        rank = int(ranks.rank_L[at])
        if rank == UNKNOWN:
            no = ranks.excluded.get(at, frozenset())
            following = [k for n in states for r, k in kids[n].items() if r not in no]
            may_stop = True
        else:
            following = [kids[n][rank] for n in states if rank in kids[n]]
            may_stop = len(following) < len(states)
        if not following:
            return [*found, depth]
        if may_stop:
            found.append(depth)
        states, depth = following, depth + 1


def walk(shape: Shape, ranks: RequestRanks) -> Walk:
    """Decode the request's text again with this tree."""
    kids = children_by_rank(shape)
    length = len(ranks.rank_L)
    if ranks.num_known == length:
        course = _course(length, lambda start: possible_accepts(kids, ranks, start)[0])
        return Walk(course, course, exact=True)
    options = [possible_accepts(kids, ranks, start) for start in range(length)]
    fewest, most = [0] * (length + 1), [0] * (length + 1)
    least, best = [0] * length, [0] * length  # nodes accepted on the way to most, fewest steps
    for start in range(length - 1, -1, -1):
        ends = [(min(start + count + 1, length), count) for count in options[start]]
        most[start], least[start] = max((1 + most[end], count) for end, count in ends)
        count_of = min((1 + fewest[end], -count) for end, count in ends)
        fewest[start], best[start] = count_of[0], -count_of[1]
    low = _course(length, lambda start: least[start])
    exact = all(len(options[start]) == 1 for start in low.starts_S)
    return Walk(low, low if exact else _course(length, lambda start: best[start]), exact=exact)


def _course(length: int, accepted_at: Callable[[int], int]) -> Course:
    starts: list[int] = []
    accepted: list[int] = []
    at = 0
    while at < length:
        starts.append(at)
        accepted.append(accepted_at(at))
        at += accepted[-1] + 1
    return Course(starts, accepted)


def node_counts(
    shape: Shape, ranks: RequestRanks, course: Course
) -> tuple[Sequence[int], Sequence[int]]:
    """For each node, steps of `course` that tested it and that accepted it (low where unknown)."""
    kids = children_by_rank(shape)
    tested, accepted = [0] * shape.num_nodes, [0] * shape.num_nodes
    for start, count in zip(course.starts_S, course.accepted_S, strict=True):
        node = 0
        for at in range(start, min(start + count, len(ranks.rank_L)) + 1):
            if at - start >= ranks.limit - start - 1:
                break
            for child in kids[node].values():
                tested[child] += 1
            if at - start == count or at >= len(ranks.rank_L):
                break
            node = kids[node].get(int(ranks.rank_L[at]), -1)
            if node < 0:
                break
            accepted[node] += 1
    return tested, accepted
