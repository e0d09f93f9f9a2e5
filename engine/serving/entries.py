"""A request on its way through the scheduler, and a model pair with the requests in its slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.serving.trace import ArrivalRow, Decoder, Order

#: accepted tokens per step that a request is credited with before anything is known
PRIOR_ACCEPTED = 1.0
#: weight of the past in what a request accepts per step
_DECAY = 0.8
#: the same where nothing was drafted: what was not tried for long is forgotten
_DECAY_UNTRIED = 0.97


@dataclass(slots=True, eq=False)
class Entry:
    """One order from its coming to its end. `row` is what is told of it."""

    order: Order
    row: ArrivalRow
    pair: Pair
    number: int  # counted as orders come: breaks ties
    #: accepted tokens per step of late, a fading mean
    accepted: float = PRIOR_ACCEPTED
    #: number of the last left-over node that it had (`engine.serving.budgets`); -1: none yet
    turn: int = -1

    @property
    def index(self) -> int:
        return self.order.request.index

    @property
    def size(self) -> int:
        """Tokens it may take: prompt and answer."""
        return len(self.order.request.prompt_ids) + self.order.request.max_new_tokens

    def learn(self, *, drafted: int, accepted: int) -> None:
        """A step of it is over."""
        if drafted:
            self.accepted += (1 - _DECAY) * (accepted - self.accepted)
        else:
            self.accepted += (1 - _DECAY_UNTRIED) * (PRIOR_ACCEPTED - self.accepted)

    def tell(self, **changes: Any) -> ArrivalRow:
        """The row anew."""
        self.row = self.row._replace(**changes)
        return self.row


@dataclass(slots=True, eq=False)
class Pair:
    """A decoder, the entries that wait for it and those in its slots."""

    name: str
    decoder: Decoder
    waiting: list[Entry] = field(default_factory=list)
    running: dict[int, Entry] = field(default_factory=dict)  # by slot, the lowest one first
    broken: str = ""  # why it is served no more

    def free_slot(self) -> int:
        """The lowest free one, which is what a decoder gives out."""
        return next(slot for slot in range(len(self.running) + 1) if slot not in self.running)

    def take(self, slot: int, entry: Entry) -> None:
        self.running[slot] = entry
        self.running = dict(sorted(self.running.items()))

    def check_integrity(self) -> None:
        """Raise AssertionError where slots and entries do not fit together."""
        assert list(self.running) == sorted(self.running)
        entries = [*self.waiting, *self.running.values()]
        assert len({entry.index for entry in entries}) == len(entries), "a request twice"
        assert all(entry.row.ended_ns is None for entry in entries), "an ended one lingers"
        assert all(entry.pair is self for entry in entries)
        assert all(entry.row.slot == slot for slot, entry in self.running.items())
        assert all(entry.row.slot is None for entry in self.waiting)
        if self.broken:
            assert not entries, "a broken pair holds requests"
        else:
            assert self.decoder.busy == bool(self.running), "the decoder and its slots disagree"
