"""The trees of a batch whose nodes compete for a step, and the nodes that win.

A node bids its calibrated chance of acceptance (engine/calibration.py); what it must be worth is
the price of time (engine/worth.py). Policy auto (engine/drafters/auto.py) grows the trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.calibration import Calibration
from engine.growth import Chooser, Growth, Row
from engine.worth import Worth

#: chance of acceptance by the draft's probability, at most, of children that are not the first
_UNSURE = 1.5


class Bid(NamedTuple):
    """A drafted node of the tree in a slot, and the chance that it is accepted."""

    chance: float
    slot: int
    node: int


@dataclass(slots=True)
class Bidder:
    """One request's tree while the nodes of all compete."""

    slot: int
    growth: Growth
    chooser: Chooser
    most: int  # drafted nodes that may stay
    levels: int
    reach: list[float]  # by node: chance that it is accepted
    hope: list[float]  # by node: chance that a child of it is accepted too
    open: list[int] = field(default_factory=lambda: [0])

    def add(
        self,
        nodes: list[int],
        rows: list[Row],
        counted: Calibration,
        *,
        top_k: int,
        least: float,
    ) -> None:
        """Children of these nodes, open themselves where they are not too deep.

        Where the draft is so sure of one child that the others together would hardly have a chance
        of `least`, that one is all.
        """
        growth = self.growth
        for node, row in zip(nodes, rows, strict=True):
            picked = self.chooser.choose(growth, node, row, 1)
            left = self.reach[node] * (1.0 - math.exp(min(picked[2][0], 0.0)))
            if top_k > 1 and _UNSURE * left > least:
                picked = self.chooser.choose(growth, node, row, top_k)
            for child in growth.add_children(node, *picked):
                logprob = growth.logprob[child]
                own = counted.chance(growth.rank[child], logprob)
                self.reach.append(self.reach[node] * own)
                self.hope.append(self.reach[child] * counted.continues(logprob))
                if growth.depth[child] < self.levels:
                    self.open.append(child)

    def promise(self) -> float:
        """Chance that a child of the root is accepted."""
        first = (r for r, d in zip(self.reach, self.growth.depth, strict=True) if d == 1)
        return min(sum(first), 1.0)

    def bids(self) -> list[Bid]:
        """Its best nodes, as many as may stay, the best first."""
        order = sorted(range(1, len(self.reach)), key=lambda node: -self.reach[node])
        return [Bid(self.reach[node], self.slot, node) for node in order[: self.most]]


def offers(bidders: Iterable[Bidder], frontier: int) -> list[tuple[float, Bidder, int]]:
    """Open nodes that may be expanded next, up to `frontier` of each tree; by hope, best first."""
    found = []
    for bidder in bidders:
        bidder.open.sort(key=lambda node: -bidder.hope[node])
        found += [(bidder.hope[node], bidder, node) for node in bidder.open[:frontier]]
    found.sort(key=lambda offer: -offer[0])
    return found


def winning(bids: Sequence[Bid], worth: Worth) -> list[Bid]:
    """The bids that are worth scoring, given best first.

    The widest tree is paid for by all: every width is tried, from what each would give.
    """
    count: dict[int, int] = {}
    place = []  # of each bid among those of its request
    for bid in bids:
        count[bid.slot] = count.get(bid.slot, 0) + 1
        place.append(count[bid.slot])
    most = max(place, default=0)
    best, found = 0.0, []
    widths = range(1, most + 1) if worth.wider and len(count) > 1 else [most]
    for width in widths:
        within = [bid for bid, at in zip(bids, place, strict=True) if at <= width]
        gained, size = worth.best([bid.chance for bid in within])
        if gained - worth.wider * (width - 1) > best:
            best, found = gained - worth.wider * (width - 1), within[:size]
    return found


def best_of_each(bids: Iterable[Bid]) -> list[Bid]:
    """Every tree's first bid."""
    first: dict[int, Bid] = {}
    for bid in bids:
        first.setdefault(bid.slot, bid)
    return list(first.values())
