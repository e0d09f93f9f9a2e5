"""Who is next: the waiting order that gets a slot when one is free. One line each in POLICIES.

A policy decides when a request begins and never what it says: tokens are those of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from engine.errors import UserError
from engine.serving.entries import Entry

#: tokens of size that a second of waiting makes up for (`ShortestFirst`)
AGEING_TOKENS_PER_S = 200.0
#: clients remembered at most (`Fair`)
_MOST_CLIENTS = 4096


class Policy(Protocol):
    """Chooses among entries that wait for the same pair, at least one."""

    def next(self, waiting: Sequence[Entry]) -> Entry:
        """The one to admit."""

    def admitted(self, entry: Entry) -> None:
        """It got its slot."""


class Ordered:
    """By a key, smallest first; ties as they came."""

    def key(self, entry: Entry) -> Any:
        """What is compared."""
        return entry.order.arrival_ns

    def next(self, waiting: Sequence[Entry]) -> Entry:
        return min(waiting, key=lambda entry: (self.key(entry), entry.number))

    def admitted(self, entry: Entry) -> None:
        pass


class FirstCome(Ordered):
    """As they came."""


class ShortestFirst(Ordered):
    """Fewest tokens of prompt and answer first, less what waiting makes up for.

    A second of waiting is worth `ageing` tokens. All age alike, so the order between two never
    changes, and a request of S tokens is overtaken only by those that came less than S / ageing
    seconds after it: nothing starves.
    """

    def __init__(self, ageing: float = AGEING_TOKENS_PER_S) -> None:
        if not ageing > 0:
            raise UserError(f"Ageing is {ageing}; it takes tokens per second, more than 0.")
        self._ageing = ageing

    def key(self, entry: Entry) -> float:
        return entry.size + self._ageing * entry.order.arrival_ns * 1e-9


class Deadline(Ordered):
    """Earliest deadline first (Liu and Layland, 1973); those without one come last."""

    def key(self, entry: Entry) -> tuple[bool, int, int]:
        deadline = entry.order.deadline_ns
        return deadline is None, deadline or 0, entry.order.arrival_ns


class Fair(Ordered):
    """Clients in turn: whose last request began longest ago is next, each as its requests came."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}  # client -> number of its last admission, oldest first
        self._count = 0

    def key(self, entry: Entry) -> tuple[int, int]:
        return self._turns.get(entry.order.client, -1), entry.order.arrival_ns

    def admitted(self, entry: Entry) -> None:
        self._count += 1
        self._turns.pop(entry.order.client, None)
        self._turns[entry.order.client] = self._count
        if len(self._turns) > _MOST_CLIENTS:
            del self._turns[next(iter(self._turns))]


POLICIES: dict[str, Callable[[], Policy]] = {
    "first-come": FirstCome,  # as they came
    "shortest-first": ShortestFirst,  # least work first, ageing as they wait
    "deadline": Deadline,  # earliest deadline first
    "fair": Fair,  # clients in turn
}


def policy_named(name: str) -> Policy:
    """A new policy. Raises UserError for a name that is none."""
    if name not in POLICIES:
        raise UserError(f"Policy {name!r} is unknown; there are: {', '.join(POLICIES)}.")
    return POLICIES[name]()
