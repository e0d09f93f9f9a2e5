"""Whose turn it is: the frontier of one growing tree divided over ranks, subtree by subtree.

Every rank keeps this book by itself and comes to the same entries, so nothing of it is sent.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.growth import Growth


class Share(NamedTuple):
    """What one rank does for one level of a tree."""

    run: list[int]  # nodes to run through the draft model, parents first
    expand: list[int]  # those of them whose children it proposes, in order of their numbers


class Shares:
    """Owners of one tree's nodes, and which of its nodes each rank has run.

    A node belongs to the rank that has its parent. Where that makes shares uneven, a node moves to
    a rank with less to do, and its subtree with it: that rank runs the path to it again, in the
    same pass. Sending the path's keys and values would take a message per layer instead.
    """

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self.owner: dict[int, int] = {}
        self.has: list[set[int]] = [set() for _ in range(num_ranks)]
        self.num_moved = 0

    def divide(self, growth: Growth, nodes: list[int]) -> list[Share]:
        """A share for each rank; together they expand `nodes`, each once.

        The root is run by all, its pass being needed everywhere, and expanded by rank 0.
        """
        if nodes == [0]:
            for known in self.has:
                known.add(0)
            return [Share([0], [0] if rank == 0 else []) for rank in range(self.num_ranks)]
        given = self._by_parent(growth, nodes)
        self._even_out(growth, given)
        shares = []
        for rank, mine in enumerate(given):
            run = self._running(growth, rank, mine)
            self.has[rank].update(run)
            self.owner.update((node, rank) for node in mine)
            shares.append(Share(run, sorted(mine)))
        return shares

    def _by_parent(self, growth: Growth, nodes: list[int]) -> list[list[int]]:
        """Nodes by the rank of their parent; children of the root where there is least to do."""
        given: list[list[int]] = [[] for _ in range(self.num_ranks)]
        free: list[int] = []
        for node in nodes:
            owner = self.owner.get(growth.parents[node])
            (free if owner is None else given[owner]).append(node)
        for node in free:
            min(given, key=len).append(node)
        return given

    def _even_out(self, growth: Growth, given: list[list[int]]) -> None:
        """Move nodes from the fullest rank while that eases the fuller of the two.

        What counts is rows to run, then nodes to expand: a move that costs nothing now may spare
        rows later, when the subtree has grown. Every move lowers the greatest load, so it ends.
        """

        def load(rank: int, nodes: list[int]) -> tuple[int, int]:
            return len(self._running(growth, rank, nodes)), len(nodes)

        while True:
            loads = [load(rank, mine) for rank, mine in enumerate(given)]
            fullest = loads.index(max(loads))
            best = (loads[fullest], -1, -1)  # greater load of the two, node, rank
            for node in given[fullest]:
                left = load(fullest, [other for other in given[fullest] if other != node])
                for rank, mine in enumerate(given):
                    if rank != fullest:
                        best = min(best, (max(left, load(rank, [*mine, node])), node, rank))
            eased, node, rank = best
            if eased >= loads[fullest]:
                return
            given[fullest].remove(node)
            given[rank].append(node)
            self.num_moved += self.owner.get(growth.parents[node]) is not None

    def _running(self, growth: Growth, rank: int, nodes: list[int]) -> list[int]:
        """`nodes` and those of their ancestors that this rank has not run, parents first."""
        wanted = set()
        for node in nodes:
            at = node
            while at >= 0 and at not in self.has[rank] and at not in wanted:
                wanted.add(at)
                at = growth.parents[at]
        return sorted(wanted)  # a parent has the lower number
