"""Many requests as they come: who waits, who is in the batch, who gave up. Read `Scheduler.step`.

Three verbs per step: schedule (give up what is late, admit what fits), run (one step of each busy
pair), postprocess (write down who had what). Whatever it decides, the tokens of a request are those
it would have alone. One thread calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import NamedTuple

from engine.clock import shared_out
from engine.decode import StepOutput
from engine.errors import UserError
from engine.pass_inputs import READ_AT_ONCE
from engine.records import FinishReason, RequestRecord, StepRecord
from engine.serving.budgets import Budgets, budgets_named
from engine.serving.entries import Entry, Pair
from engine.serving.errors import QueueFullError
from engine.serving.policies import Policy, policy_named
from engine.serving.ticks import tick_of
from engine.serving.trace import ArrivalRow, Decoder, Order, Tick

REFUSED, LOST = "refused", "lost"
#: orders that may wait unless told otherwise
MAX_WAITING = 256
_LOG = logging.getLogger(__name__)
#: what a decoder that started well may raise; anything else is a bug and goes through
_FAILURES = (RuntimeError, MemoryError)  # DecodeError and what torch raises among them


class Changes(NamedTuple):
    """What happened since the last step. Of several rows of one request the last one holds."""

    arrivals: list[ArrivalRow]
    ticks: list[Tick]
    steps: list[StepRecord]
    finished: list[RequestRecord]


class Scheduler:
    """Feeds requests to the decoders of one or several model pairs.

    `policy` and `budgets` are names (`engine.serving.policies`, `engine.serving.budgets`) or
    objects; `clock` gives nanoseconds since the start, by default of the scheduler.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        *,
        policy: str | Policy = "first-come",
        budgets: str | Budgets = "auction",
        max_waiting: int = MAX_WAITING,
        clock: Callable[[], int] | None = None,
        replica: int = 0,
    ) -> None:
        assert decoders, "a scheduler without a model pair"
        self._pairs = {name: Pair(name, decoder) for name, decoder in decoders.items()}
        self._policy = policy_named(policy) if isinstance(policy, str) else policy
        self._budgets = budgets_named(budgets) if isinstance(budgets, str) else budgets
        self._max_waiting = max_waiting
        self._clock = clock or _since_now()
        self._replica = replica
        self._live: dict[int, Entry] = {}
        self._changes = Changes([], [], [], [])
        self._draining = False
        self._first = 0  # pair that the next step begins with
        self._num_ticks = self._num_orders = self._num_ended = 0

    # -- what is there -------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Orders in the queue."""
        return sum(len(pair.waiting) for pair in self._pairs.values())

    @property
    def running(self) -> int:
        """Requests in slots."""
        return sum(len(pair.running) for pair in self._pairs.values())

    @property
    def busy(self) -> bool:
        """Whether a step would do or tell anything."""
        return bool(self._live) or any(self._changes)

    @property
    def broken(self) -> str:
        """Why a pair is served no more; empty where all are."""
        return next((pair.broken for pair in self._pairs.values() if pair.broken), "")

    def now(self) -> int:
        """Nanoseconds on its clock."""
        return self._clock()

    # -- orders --------------------------------------------------------------------------------

    def submit(self, order: Order) -> ArrivalRow:
        """Queue an order. A refusal is told by the next step as well.

        Raises UserError for one that could never be served, and QueueFullError where as many wait
        as may or the scheduler is draining.
        """
        entry = self._entry(order)
        try:
            pair = entry.pair = self._pair_of(order)
            entry.tell(pair=pair.name)
            if entry.index in self._live:
                raise UserError(f"Request {entry.index} is already there; number requests anew.")
            if pair.broken:
                raise UserError(pair.broken)
            pair.decoder.check(order.request)
            self._check_queue()
        except (UserError, QueueFullError) as error:
            self._end(entry, REFUSED, message=str(error))
            raise
        self._live[entry.index] = entry
        pair.waiting.append(entry)
        self._changes.arrivals.append(entry.row)
        return entry.row

    def cancel(self, index: int) -> bool:
        """End a request where it is, waiting or under way; False where it is neither."""
        entry = self._live.get(index)
        if entry is not None:
            self._give_up(entry, FinishReason.CANCELLED)
        return entry is not None

    def drain(self) -> None:
        """Take no more orders; those that are there are served by further steps."""
        self._draining = True

    def close(self) -> Changes:
        """Take no more orders and cancel what is there."""
        self.drain()
        for index in list(self._live):
            self.cancel(index)
        return self._told()

    def _check_queue(self) -> None:
        if self._draining:
            raise QueueFullError("No more requests are taken here: the server is about to stop.")
        if self.waiting >= self._max_waiting:
            raise QueueFullError(
                f"{self.waiting} requests are waiting, and no more may; try again in a while."
            )

    def _pair_of(self, order: Order) -> Pair:
        if order.pair in self._pairs:
            return self._pairs[order.pair]
        if not order.pair and len(self._pairs) == 1:
            return next(iter(self._pairs.values()))
        raise UserError(
            f"Model pair {order.pair!r} is not served here; there are: {', '.join(self._pairs)}."
        )

    def _entry(self, order: Order) -> Entry:
        self._num_orders += 1
        row = ArrivalRow(
            request=order.request.index,
            client=order.client,
            pair=order.pair,
            replica=self._replica,
            arrival_ns=order.arrival_ns,
            num_prompt=len(order.request.prompt_ids),
            max_new_tokens=order.request.max_new_tokens,
            deadline_ns=order.deadline_ns,
            timeout_ns=order.timeout_ns,
        )
        return Entry(order, row, next(iter(self._pairs.values())), self._num_orders)

    # -- one step ------------------------------------------------------------------------------

    def step(self) -> Changes:
        """Give up what is late, admit what fits, one step of each busy pair; what changed."""
        self._schedule()
        pairs = list(self._pairs.values())
        for pair in pairs[self._first :] + pairs[: self._first]:
            if pair.running:
                self._run(pair)
        self._first = (self._first + 1) % len(pairs)
        return self._told()

    def _schedule(self) -> None:
        now = self._clock()
        for entry in list(self._live.values()):
            if entry.order.timeout_ns is not None and entry.order.timeout_ns <= now:
                self._give_up(entry, FinishReason.TIMED_OUT)
        for pair in self._pairs.values():
            self._admit(pair, self._next(pair))

    def _next(self, pair: Pair) -> list[Entry]:
        """Who gets the free slots now, out of the queue.

        While others wait for their next step, one prompt or so many short ones as a pass reads.
        """
        chosen: list[Entry] = []
        free, tokens = pair.decoder.num_free if pair.waiting else 0, 0
        while pair.waiting and len(chosen) < free:
            entry = self._policy.next(pair.waiting)
            tokens += entry.row.num_prompt
            if chosen and pair.running and tokens > READ_AT_ONCE:
                break
            pair.waiting.remove(entry)
            self._policy.admitted(entry)
            chosen.append(entry)
        return chosen

    def _admit(self, pair: Pair, entries: list[Entry]) -> None:
        """Prefill them together; where that fails one by one, so that only the culprit is lost."""
        if not entries:
            return
        begin = self._clock()
        try:
            pair.decoder.add(*(entry.order.request for entry in entries))
        except _FAILURES as error:
            if len(entries) == 1:
                self._end(entries[0], LOST, message=_sentence(error))
                return
            _LOG.warning("%d prompts failed together, now one by one", len(entries), exc_info=error)
            for entry in entries:
                self._admit(pair, [entry])
            return
        spans = shared_out(begin, self._clock(), [entry.row.num_prompt for entry in entries])
        for entry, (admitted, prefilled) in zip(entries, spans, strict=True):
            slot = pair.free_slot()
            pair.take(slot, entry)
            entry.tell(slot=slot, admitted_ns=admitted, prefilled_ns=prefilled)
            self._changes.arrivals.append(entry.row)

    def _run(self, pair: Pair) -> None:
        batch = list(pair.running.values())
        budgets, begin = self._budgets.share(batch), self._clock()
        try:
            output = pair.decoder.step(budgets)
        except _FAILURES as error:
            for entry in batch:
                if entry.row.ended_ns is None:  # else its pair was shut on the way
                    self._drop(entry, LOST, message=_sentence(error))
            return
        self._postprocess(pair, output, budgets, begin)

    def _postprocess(
        self, pair: Pair, output: StepOutput, budgets: Mapping[int, int] | None, begin_ns: int
    ) -> None:
        now = self._clock()
        self._changes.ticks.append(
            tick_of(
                pair,
                output.steps,
                number=self._num_ticks,
                replica=self._replica,
                span_ns=(begin_ns, now),
                waiting=self.waiting,
                budgets=budgets,
            )
        )
        self._num_ticks += 1
        for step in output.steps:
            entry = self._live[step.request]
            entry.learn(drafted=step.tree.num_drafted, accepted=step.verdict.num_accepted)
            entry.tell(num_kept=entry.row.num_kept + step.num_kept)
            if step.num_kept and entry.row.first_token_ns is None:
                self._changes.arrivals.append(entry.tell(first_token_ns=now))
        self._changes.steps.extend(output.steps)
        for record in output.finished:
            self._changes.finished.append(record)
            entry = self._live[record.request]
            entry.tell(num_kept=record.num_kept)
            self._leave(entry)
            self._end(entry, record.finish_reason)

    # -- ends ----------------------------------------------------------------------------------

    def _give_up(self, entry: Entry, reason: FinishReason) -> None:
        if entry.row.slot is None:
            entry.pair.waiting.remove(entry)
            self._end(entry, reason)
        else:
            self._drop(entry, reason)

    def _drop(self, entry: Entry, reason: str, message: str = "") -> None:
        """End one that is under way: its slot is free afterwards."""
        ends = FinishReason.CANCELLED if reason == LOST else FinishReason(reason)
        self._leave(entry)
        try:
            self._changes.finished.append(entry.pair.decoder.drop(entry.index, ends))
        except _FAILURES as error:  # what holds its slot is beyond repair
            self._end(entry, LOST, message=_sentence(error))
            self._shut(entry.pair, _sentence(error))
            return
        self._end(entry, reason, message=message)

    def _shut(self, pair: Pair, message: str) -> None:
        """Serve a pair no more; the others go on."""
        pair.broken = f"Model pair {pair.name!r} has failed and is no longer served: {message}"
        for entry in [*pair.waiting, *pair.running.values()]:
            self._end(entry, LOST, message=pair.broken)
        pair.waiting.clear()
        pair.running.clear()

    def _leave(self, entry: Entry) -> None:
        assert entry.row.slot is not None
        del entry.pair.running[entry.row.slot]

    def _end(self, entry: Entry, reason: str, message: str = "") -> None:
        if self._live.get(entry.index) is entry:  # one that was refused never got there
            del self._live[entry.index]
        self._num_ended += 1
        entry.tell(ended_ns=self._clock(), reason=str(reason), message=message)
        self._changes.arrivals.append(entry.row)

    def _told(self) -> Changes:
        told, self._changes = self._changes, Changes([], [], [], [])
        return told

    def check_integrity(self) -> None:
        """Raise AssertionError where an order is lost, doubled, or a slot is held by nobody."""
        for pair in self._pairs.values():
            pair.check_integrity()
        there = [e for p in self._pairs.values() for e in (*p.waiting, *p.running.values())]
        assert {entry.index: entry for entry in there} == self._live, "an order got lost"
        assert len(there) + self._num_ended == self._num_orders, "an order ended twice or never"


def _sentence(error: BaseException) -> str:
    """What people are told of a failure; all of it goes to the log."""
    _LOG.warning("a decoder failed", exc_info=error)
    said = str(error) or type(error).__name__
    return said if said.endswith(".") else said + "."


def _since_now() -> Callable[[], int]:
    origin = perf_counter_ns()
    return lambda: perf_counter_ns() - origin
