"""Several replicas as one scheduler: the same verbs, the same rows, and no request lost with one.

`step` collects what replicas tell, notices those that are gone, sends requests on, and returns what
changed. One thread calls it. Tokens depend on the request alone, so one that is run again
elsewhere comes to the same ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns

from engine.cluster.local import LocalLink
from engine.cluster.mail import Link, LostError, ReplicaSpec, Report
from engine.cluster.member import Member, Patience
from engine.cluster.router import Limits, Router
from engine.errors import DecodeError, UserError
from engine.serving.errors import QueueFullError
from engine.serving.scheduler import REFUSED, Changes
from engine.serving.trace import ArrivalRow, Order

logger = logging.getLogger(__name__)

Start = Callable[[ReplicaSpec], Link]

#: least time between two mails to a replica that has work, and to one that has none
_BUSY_S, _IDLE_S = 0.02, 0.25
#: how long a step waits where nothing changed
_PAUSE_S = 0.003
#: time that replicas are given to end requests, then themselves, when the fleet closes
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How many replicas, and what is done with them."""

    replicas: int = 2
    router: str = "predicted"
    limits: Limits = field(default_factory=Limits)
    restarts: int = 0  # replicas that may be started in place of lost ones
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise UserError(f"{self.replicas} replicas cannot serve anything; use 1 or more.")
        if self.restarts < 0:
            raise UserError(f"restarts is {self.restarts}; use 0 or more.")


class Fleet:
    """Starts replicas, which load at once; `wait_ready` before the first `submit`."""

    def __init__(
        self,
        spec: ReplicaSpec,
        options: FleetOptions | None = None,
        *,
        start: Start = LocalLink,
    ) -> None:
        """`start` makes a replica."""
        self._spec, self._start = spec, start
        self._options = options or FleetOptions()
        self._origin_ns = perf_counter_ns()
        self._router = Router(policy=self._options.router, limits=self._options.limits)
        self._members: dict[int, Member] = {}
        self._restarts_left = self._options.restarts
        self._next_number = 0
        self._draining = self._served = False
        self._why_last = ""
        try:
            for _ in range(self._options.replicas):
                self.add_replica()
        except BaseException:
            self._end_links()
            raise

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is there --------------------------------------------------------------------------

    @property
    def members(self) -> list[Member]:
        """The replicas that are there, loading ones too. Numbers are never used again."""
        return list(self._members.values())

    @property
    def waiting(self) -> int:
        """Orders that are not under way, at replicas or here."""
        return self._router.unfinished - self.running

    @property
    def running(self) -> int:
        """Requests under way."""
        return self._router.running

    @property
    def busy(self) -> bool:
        """Whether a step would do or tell anything."""
        return bool(self._router.unfinished) or self._router.changed

    def now(self) -> int:
        """Nanoseconds on the fleet's clock, which starts at 0 when all replicas are ready."""
        return perf_counter_ns() - self._origin_ns

    # -- replicas -------------------------------------------------------------------------------

    def add_replica(self) -> int:
        """Start one more; it takes requests once it is ready. Returns its number."""
        number = self._next_number
        self._next_number += 1
        self._members[number] = Member(number, self._start(self._spec), self.now())
        return number

    def drain_replica(self, number: int) -> None:
        """Give a replica nothing more and end it when it has nothing left."""
        member = self._members[number]
        member.draining = True
        if member.ready:
            self._router.drain(number)

    def wait_ready(
        self,
        on_progress: Callable[[str, float | None], None] = lambda message, share: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until every replica has loaded; False where `should_stop` said so before.

        Raises UserError for models or options that a replica refused, DecodeError where none is
        left; the fleet is closed then.
        """
        told: tuple[str, float | None] = ("", None)
        try:
            while self._members and not all(m.ready for m in self._members.values()):
                if should_stop():
                    return False
                self._exchange()
                for member in self._members.values():
                    if member.failed and member.report.wrong_input:
                        raise UserError(
                            f"Replica {member.number} ({member.link.where}): "
                            f"{member.report.message}"
                        )
                self._look_after()
                if self._members and (progress := self._progress()) != told:
                    told = progress
                    on_progress(*progress)
                time.sleep(_PAUSE_S)
        except BaseException:
            self._end_links()
            raise
        if not self._members:
            self._end_links()
            raise DecodeError(f"No replica could be started: {self._why_last}.")
        if not self._served:
            self._start_clock()
        return True

    def _start_clock(self) -> None:
        by = self.now()
        self._origin_ns += by
        for member in self._members.values():
            member.shift(-by)

    def _progress(self) -> tuple[str, float | None]:
        members = list(self._members.values())
        ready = sum(m.ready for m in members)
        share = sum(1.0 if m.ready else m.report.fraction or 0.0 for m in members) / len(members)
        doing = next((m.report.message for m in members if not m.ready), "")
        message = f"{ready} of {len(members)} replicas ready"
        return (f"{message}; {doing[:1].lower()}{doing[1:]}" if doing else message), share

    # -- orders ---------------------------------------------------------------------------------

    def submit(self, order: Order) -> ArrivalRow:
        """Queue an order. One that could never be served is told as refused by a later step.

        Raises UserError for an index that is already there, QueueFullError where as many wait as
        may, or the fleet is draining.
        """
        if self._router.holds(order.request.index):
            raise UserError(
                f"Request {order.request.index} is already there; number requests anew."
            )
        if self._draining:
            raise QueueFullError("No more requests are taken here: the server is about to stop.")
        self._served = True
        row = self._router.submit(order, self.now())
        if row.reason == REFUSED:
            raise QueueFullError(row.message)
        return row

    def cancel(self, index: int) -> bool:
        """End a request where it is; False where it is neither waiting nor under way."""
        if not self._router.holds(index):
            return False
        number = self._router.cancel(index, self.now())
        if number is not None:
            self._members[number].cancels.append(index)
        return True

    def drain(self) -> None:
        """Take no more orders; those that are there are served by further steps."""
        self._draining = True

    # -- one step -------------------------------------------------------------------------------

    def step(self) -> Changes:
        """Hear replicas, replace lost ones, send requests on; what changed since the last step.

        Waits a moment where nothing did.
        """
        self._exchange()
        self._look_after()
        now = self.now()
        self._router.expire(now)
        for number, orders in self._router.assign(now).items():
            self._members[number].orders.extend(orders)
        self._post()
        if not self._router.changed:
            time.sleep(_PAUSE_S)
        return self._router.take_changes()

    def close(self) -> Changes:
        """Cancel what is there and end all replicas. No process is left afterwards."""
        self.drain()
        self._restarts_left = 0
        told = self._router.take_changes()
        until = time.monotonic() + _CLOSE_S
        try:
            for index in self._router.indices:
                self.cancel(index)
            while self._router.unfinished and self._members and time.monotonic() < until:
                _extend(told, self.step())
        finally:  # whatever went wrong, no process is left
            self._end_links()
        _extend(told, self._router.take_changes())
        return told

    # -- within ---------------------------------------------------------------------------------

    def _exchange(self) -> None:
        """Take in reports that came, and ask those who told theirs some time ago."""
        for member in list(self._members.values()):
            if member.posted_ns is None:
                continue
            try:
                report = member.link.collect()
            except LostError as lost:
                self._lose(member, str(lost))
                continue
            if report is not None:
                self._take(member, report)
        self._post()

    def _take(self, member: Member, report: Report) -> None:
        was_ready, now = member.ready, self.now()
        received = now - (perf_counter_ns() - report.received_ns)
        changes = member.take(report, received)
        if member.ready and not was_ready:
            self._router.add(member.number, slots=report.slots, now_ns=now)
            if member.draining:
                self._router.drain(member.number)
        self._router.told(member.number, changes, now)

    def _post(self) -> None:
        now = self.now()
        for member in self._members.values():
            if member.posted_ns is not None or member.failed:
                continue
            has_work = not member.ready or bool(self._router.held(member.number))
            pause = (_BUSY_S if has_work else _IDLE_S) * 1e9
            if member.orders or member.cancels or now - member.heard_ns >= pause:
                member.post(now)

    def _look_after(self) -> None:
        """Replicas that failed or hang are lost; drained ones that are empty leave."""
        now = self.now()
        for member in list(self._members.values()):
            if member.failed:
                self._lose(member, member.report.message.rstrip("."))
            elif why := member.overdue(now, self._options.patience):
                self._lose(member, why)
            elif member.draining and member.ready and not self._router.held(member.number):
                self._router.remove(member.number)
                del self._members[member.number]
                member.link.kill()  # it has nothing: there is no step to wait for
        if not self._members and self._router.unfinished:
            why = self._why_last or "all were drained"
            self._router.give_up(f"No replica is left: {why}.", now)

    def _lose(self, member: Member, why: str) -> None:
        self._why_last = f"replica {member.number} ({member.link.where}) was lost because {why}"
        logger.warning(
            "Replica %d (%s) was lost because %s; its %d requests are run again.",
            member.number, member.link.where, why,
            len(self._router.held(member.number)),
        )  # fmt: skip
        del self._members[member.number]
        member.link.kill()
        self._router.lost(member.number, why, self.now())
        hopeless = member.failed and member.report.wrong_input
        if self._restarts_left and not member.draining and not hopeless:
            self._restarts_left -= 1
            self.add_replica()

    def _end_links(self) -> None:
        """End every replica; those that do not end by themselves are killed."""
        members, self._members = list(self._members.values()), {}
        until = time.monotonic() + _CLOSE_S
        for member in members:
            member.link.hang_up()
        for member in members:
            member.link.close(max(0.0, until - time.monotonic()))
        for member in members:
            self._router.lost(member.number, "the fleet was closed", self.now())
        self._router.give_up("The fleet was closed before its turn came.", self.now())


def _extend(told: Changes, more: Changes) -> None:
    told.arrivals.extend(more.arrivals)
    told.ticks.extend(more.ticks)
    told.steps.extend(more.steps)
    told.finished.extend(more.finished)
