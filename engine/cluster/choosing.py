"""Which of the replicas with room gets a request. One line each in CHOOSERS; ties are stable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.cluster.places import Place
from engine.errors import UserError
from engine.serving.trace import Order

#: time until the request would be done at a place, in nanoseconds
Predict = Callable[[Place], float]


class Chooser(Protocol):
    """Chooses among places with room, at least one."""

    def choose(self, places: list[Place], order: Order, predict: Predict) -> Place:
        """The one that gets the request."""


class Predicted:
    """Where it would be done first, by what was measured there; else the emptier one."""

    def choose(self, places: list[Place], order: Order, predict: Predict) -> Place:
        return min(places, key=lambda place: (predict(place), len(place.entries), place.number))


class ShortestQueue:
    """The one that has the fewest requests, however long they are and however fast it is."""

    def choose(self, places: list[Place], order: Order, predict: Predict) -> Place:
        return min(places, key=lambda place: (len(place.entries), place.number))


class RoundRobin:
    """One after another."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, places: list[Place], order: Order, predict: Predict) -> Place:
        chosen = min(places, key=lambda place: (place.number <= self._last, place.number))
        self._last = chosen.number
        return chosen


CHOOSERS: dict[str, Callable[[], Chooser]] = {
    "predicted": Predicted,
    "shortest-queue": ShortestQueue,
    "round-robin": RoundRobin,
}


def chooser_named(name: str) -> Chooser:
    """A new chooser. Raises UserError for a name that is none."""
    if name not in CHOOSERS:
        raise UserError(f"Router {name!r} is unknown; there are: {', '.join(CHOOSERS)}.")
    return CHOOSERS[name]()
