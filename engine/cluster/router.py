"""Which replica a request goes to, and what becomes of it where one is lost. Pure logic.

Knows neither processes nor clocks: the time is an argument, and what replicas tell comes in as
rows. Every request that was submitted ends exactly once, whatever is lost and when:

- it is at one replica at most; what any other one tells of it is ignored;
- where its replica is lost it goes to the head of the queue and is run again from its prompt, with
  the same seeds and so to the same tokens;
- one that was at several lost replicas in a row may be what they died of, or may have been there by
  chance: it is run again on a replica of its own, and given up where that one is lost too.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from engine.cluster.choosing import chooser_named
from engine.cluster.places import Entry, Place, fresh_row
from engine.cluster.rates import Rates
from engine.records import FinishReason
from engine.serving.scheduler import LOST, REFUSED, Changes
from engine.serving.trace import ArrivalRow, Order, Tick

#: weight of the last request in the share of its length limit that a request is expected to use
_NEW = 0.05


class Limits(NamedTuple):
    """Where the router says no."""

    queue: int | None = None  # requests that wait here; more are refused. None: any number
    depth: float = 2.0  # requests that a replica is given, in multiples of its slots
    losses: int = 2  # replicas lost with a request there before it gets one of its own


class Router:
    """Holds the requests that wait, and knows where the others are."""

    def __init__(self, *, policy: str = "predicted", limits: Limits = Limits()) -> None:  # noqa: B008
        """Raises UserError for a policy that there is not."""
        self._chooser = chooser_named(policy)
        self._limits = limits
        self._places: dict[int, Place] = {}
        self._entries: dict[int, Entry] = {}
        self._queue: deque[Entry] = deque()
        self._changes = Changes([], [], [], [])
        self._fleet_rates = Rates()
        self._length_share = 1.0
        self._num_passes = 0  # of all replicas

    # -- how it stands --------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Requests that no replica has."""
        return len(self._queue)

    @property
    def unfinished(self) -> int:
        """Requests that have not ended."""
        return len(self._entries)

    @property
    def running(self) -> int:
        """Requests that are under way at a replica."""
        return sum(
            entry.row.admitted_ns is not None
            for place in self._places.values()
            for entry in place.entries.values()
        )

    @property
    def indices(self) -> list[int]:
        """Of the requests that have not ended."""
        return list(self._entries)

    @property
    def replicas(self) -> list[int]:
        """Numbers of the replicas that are there, the draining ones too."""
        return list(self._places)

    def held(self, number: int) -> list[int]:
        """Indices of the requests that a replica has; none where it is not ready."""
        return list(self._places[number].entries) if number in self._places else []

    def take_changes(self) -> Changes:
        """What happened since the last call.

        A request's steps come with its end: those of an attempt that was lost are never told.
        Their passes are counted over all replicas, their times are on the fleet's clock.
        """
        changes, self._changes = self._changes, Changes([], [], [], [])
        return changes

    @property
    def changed(self) -> bool:
        """Whether there is something to take."""
        return any(self._changes)

    # -- replicas come and go -------------------------------------------------------------------

    def add(self, number: int, *, slots: int, now_ns: int) -> None:
        """A replica is ready for requests."""
        assert number not in self._places, number
        depth = max(1, round(slots * self._limits.depth))
        self._places[number] = Place(number, slots, depth, told_ns=now_ns)

    def drain(self, number: int) -> None:
        """Give a replica nothing more; what it has it ends."""
        self._places[number].draining = True

    def remove(self, number: int) -> None:
        """A drained replica leaves. It must have nothing."""
        assert not self._places[number].entries, self._places[number].entries
        del self._places[number]

    def lost(self, number: int, why: str, now_ns: int) -> None:
        """A replica is gone: its requests are run again elsewhere, those cancelled end."""
        place = self._places.pop(number, None)
        if place is None:
            return
        entries = list(place.entries.values())
        for entry in entries:
            place.remove(entry)
        self._run_again(entries, why, now_ns)

    def _run_again(self, entries: list[Entry], why: str, now_ns: int) -> None:
        """Requests that a replica lost go to the head of the queue, in their order, or end."""
        again = []
        for entry in entries:
            number = entry.row.replica
            entry.losses += 1
            if entry.cancelled:
                self._end(entry, FinishReason.CANCELLED, now_ns)
            elif entry.alone:
                self._end(
                    entry, LOST, now_ns,
                    f"It was lost {entry.losses} times, at last with a replica of its own because "
                    f"{why}. It may be what ends replicas, so it is not tried again.",
                )  # fmt: skip
            else:
                entry.steps, entry.record = [], None
                entry.alone = entry.losses >= self._limits.losses
                entry.row = fresh_row(entry.order)._replace(
                    replica=number, attempts=entry.losses + 1
                )
                self._note(entry)
                again.append(entry)
        self._queue.extendleft(reversed(again))

    def give_up(self, why: str, now_ns: int) -> None:
        """No replica is left and none will come: end all that wait."""
        while self._queue:
            self._end(self._queue.popleft(), LOST, now_ns, why)

    # -- requests -------------------------------------------------------------------------------

    def holds(self, index: int) -> bool:
        """Whether a request of this index has not ended."""
        return index in self._entries

    def alone(self, index: int) -> bool:
        """Whether a request gets a replica of its own because several that had it were lost."""
        return index in self._entries and self._entries[index].alone

    def submit(self, order: Order, now_ns: int) -> ArrivalRow:
        """Take a request, or refuse it because too many wait."""
        index = order.request.index
        assert index not in self._entries, f"request {index} was submitted twice"
        entry = Entry(order, fresh_row(order))
        self._entries[index] = entry
        most = self._limits.queue
        free = sum(place.depth - len(place.entries) for place in self._room())
        if most is not None and len(self._queue) >= most + free:
            self._end(
                entry, REFUSED, now_ns,
                f"{len(self._queue)} requests are waiting, and no more may; try again in a while.",
            )  # fmt: skip
            return entry.row
        self._queue.append(entry)
        self._note(entry)
        return entry.row

    def cancel(self, index: int, now_ns: int) -> int | None:
        """End a request. Returns the replica that must be told, None where none has it."""
        entry = self._entries.get(index)
        if entry is None or entry.cancelled:
            return None
        entry.cancelled = True
        if entry.at is not None:
            return entry.at
        self._queue.remove(entry)
        self._end(entry, FinishReason.CANCELLED, now_ns)
        return None

    def expire(self, now_ns: int) -> None:
        """End requests that waited here beyond their time; replicas end their own."""
        for entry in [e for e in self._queue if _is_over(e.order, now_ns)]:
            self._queue.remove(entry)
            self._end(
                entry, FinishReason.TIMED_OUT, now_ns, "Its time ran out before its turn came."
            )

    def assign(self, now_ns: int) -> dict[int, list[Order]]:
        """Send waiting requests, in order, to replicas with room: orders by replica.

        One that needs a replica of its own waits until one is empty, and others pass it by; the
        one with the least to do is given nothing meanwhile.
        """
        sent: dict[int, list[Order]] = {}
        passed: list[Entry] = []
        reserved: Place | None = None
        while self._queue:
            entry = self._queue[0]
            if entry.alone:
                place = reserved or self._least_to_do()
                if place is None or place.entries:
                    reserved = place
                    passed.append(self._queue.popleft())
                    continue
            else:
                open_places = [place for place in self._room() if place is not reserved]
                if not open_places:
                    break
                place = self._choose(open_places, entry.order, now_ns)
            self._queue.popleft()
            place.put(entry)
            entry.row = entry.row._replace(replica=place.number)
            self._note(entry)
            sent.setdefault(place.number, []).append(entry.order)
        self._queue.extendleft(reversed(passed))
        return sent

    def _choose(self, places: list[Place], order: Order, now_ns: int) -> Place:
        def predict(place: Place) -> float:
            return place.predicted_ns(
                order, now_ns=now_ns, fleet=self._fleet_rates, length_share=self._length_share
            )

        return self._chooser.choose(places, order, predict)

    def _least_to_do(self) -> Place | None:
        places = [p for p in self._places.values() if not (p.draining or p.taken)]
        return min(places, key=lambda place: (place.tokens_left, place.number), default=None)

    # -- what replicas tell ---------------------------------------------------------------------

    def told(self, number: int, changes: Changes, now_ns: int) -> None:
        """Take in what a replica tells; times are on the fleet's clock. The dead tell nothing."""
        place = self._places.get(number)
        if place is None:
            return
        place.told_ns = now_ns
        self._changes.ticks.extend(changes.ticks)
        steps = iter(changes.steps)
        for tick in changes.ticks:
            self._learn(place, tick)
            for _, step in zip(tick.shares, steps, strict=False):
                step.batch_step, step.time_ns = self._num_passes, tick.row.end_ns
                if entry := place.entries.get(step.request):
                    entry.steps.append(step)
            self._num_passes += 1
        for record in changes.finished:
            if entry := place.entries.get(record.request):
                entry.record = record
        for row in changes.arrivals:
            if entry := place.entries.get(row.request):
                self._follow(place, entry, row, now_ns)

    def _learn(self, place: Place, tick: Tick) -> None:
        row, kept = tick.row, sum(share.kept for share in tick.shares)
        for rates in (place.rates, self._fleet_rates):
            if row.active:
                rates.note_step(row.active, row.end_ns - row.begin_ns, kept)
        place.learn(tick)

    def _follow(self, place: Place, entry: Entry, told: ArrivalRow, now_ns: int) -> None:
        order = entry.order
        if told.prefilled_ns is not None and not entry.prefilled:
            entry.prefilled = True
            place.prompts_left -= told.num_prompt
            for rates in (place.rates, self._fleet_rates):
                rates.note_prefill(told.num_prompt, told.prefilled_ns - (told.admitted_ns or 0))
        admitted = told.admitted_ns
        entry.row = told._replace(
            replica=place.number,
            # clocks of two machines agree to a millisecond or so
            admitted_ns=None if admitted is None else max(admitted, order.arrival_ns),
            arrival_ns=order.arrival_ns,
            deadline_ns=order.deadline_ns,
            timeout_ns=order.timeout_ns,
            attempts=entry.losses + 1,
        )
        if told.ended_ns is None:
            self._note(entry)
            return
        place.remove(entry)
        if told.reason == LOST:  # the replica lives, but could not go on with it
            self._run_again([entry], told.message.rstrip("."), now_ns)
            return
        if told.reason in (FinishReason.EOS, FinishReason.STOP_STRING, FinishReason.LENGTH):
            used = told.num_kept / order.request.max_new_tokens
            self._length_share += _NEW * (used - self._length_share)
        self._done(entry)

    # -- within ---------------------------------------------------------------------------------

    def _room(self) -> list[Place]:
        return [
            place
            for place in self._places.values()
            if not (place.draining or place.taken) and len(place.entries) < place.depth
        ]

    def check_integrity(self) -> None:
        """Raise AssertionError where a request is nowhere or twice, or a place counts wrong."""
        there = {index: entry for p in self._places.values() for index, entry in p.entries.items()}
        waiting = {entry.order.request.index: entry for entry in self._queue}
        assert not there.keys() & waiting.keys(), "a request waits and is under way"
        assert there | waiting == self._entries, "a request got lost"
        assert sum(len(p.entries) for p in self._places.values()) == len(there), "a request twice"
        for place in self._places.values():
            place.check_integrity()

    def _note(self, entry: Entry) -> None:
        self._changes.arrivals.append(entry.row)

    def _end(self, entry: Entry, reason: str, now_ns: int, message: str = "") -> None:
        entry.row = entry.row._replace(
            ended_ns=now_ns, reason=str(reason), message=message, attempts=max(1, entry.losses)
        )
        self._done(entry)

    def _done(self, entry: Entry) -> None:
        self._changes.steps.extend(entry.steps)
        if entry.record is not None:
            self._changes.finished.append(entry.record)
        self._note(entry)
        del self._entries[entry.order.request.index]


def _is_over(order: Order, now_ns: int) -> bool:
    return order.timeout_ns is not None and now_ns >= order.timeout_ns
