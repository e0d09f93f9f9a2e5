"""How many nodes each request of a batch may have drafted in the next step.

A budget bounds a tree and changes no token. Under `auction` none is set: the drafter lets the nodes
of all requests compete for what a step can carry (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from engine.errors import UserError
from engine.serving.entries import Entry

AUCTION = "auction"
#: what a request weighs at least: one that accepted nothing of late may do better soon
_LEAST_WEIGHT = 0.05


class Budgets(Protocol):
    """Divides drafted nodes among the requests of a batch."""

    def share(self, batch: Sequence[Entry]) -> dict[int, int] | None:
        """Most drafted nodes by request index; None: the drafter chooses."""


class Auction:
    """Sets no budgets."""

    def share(self, batch: Sequence[Entry]) -> dict[int, int] | None:
        return None


class Fixed:
    """As many for each request, however many there are."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes

    def share(self, batch: Sequence[Entry]) -> dict[int, int]:
        return {entry.index: self._nodes for entry in batch}


class Proportional:
    """A total, divided by what each request accepted per step of late. Sums are exact."""

    def __init__(self, total: int) -> None:
        self._total = total

    def share(self, batch: Sequence[Entry]) -> dict[int, int]:
        weights = [max(entry.accepted, _LEAST_WEIGHT) for entry in batch]
        shares = divide(self._total, weights)
        return {entry.index: share for entry, share in zip(batch, shares, strict=True)}


class RoundRobin:
    """A total in equal parts; what is left over goes to those who had none of it for longest."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._turn = 0

    def share(self, batch: Sequence[Entry]) -> dict[int, int]:
        each, over = divmod(self._total, len(batch)) if batch else (0, 0)
        shares = {entry.index: each for entry in batch}
        for entry in sorted(batch, key=lambda entry: (entry.turn, entry.number))[:over]:
            shares[entry.index] += 1
            entry.turn = self._turn
            self._turn += 1
        return shares


def divide(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to weights that sum to `total` (largest remainders).

    All weights 0 count as equal; ties go to the first.
    """
    if not weights:
        return []
    shares = np.asarray(weights, float)
    if not shares.sum() > 0:
        shares = np.ones(len(weights))
    quotas = total * shares / shares.sum()
    whole = np.floor(quotas).astype(int)
    over = int(total - whole.sum())
    for at in np.argsort(whole - quotas, kind="stable")[:over]:
        whole[at] += 1
    return [int(count) for count in whole]


#: all but `auction` take a number, as in `fixed:6`
BUDGETS: dict[str, Callable[[int], Budgets]] = {
    "fixed": Fixed,  # nodes for each request
    "proportional": Proportional,  # a total, by what each accepted of late
    "round-robin": RoundRobin,  # a total, in turns
}


def budget_names() -> list[str]:
    """All names, the auction first."""
    return [AUCTION, *BUDGETS]


def budgets_named(text: str) -> Budgets:
    """`auction`, `fixed:6`, `proportional:48` or `round-robin:48`. Raises UserError."""
    name, _, number = text.partition(":")
    if name == AUCTION and not number:
        return Auction()
    if name not in BUDGETS:
        raise UserError(
            f"Budgets {text!r} are unknown; there are: auction, or with a number of nodes"
            f" {', '.join(f'{known}:N' for known in BUDGETS)}."
        )
    if not number.isdecimal():
        raise UserError(f"Budgets {text!r} lack their number of nodes; say {name}:16, for example.")
    return BUDGETS[name](int(number))
