"""One replica of a fleet: its link, how it stands, and how its clock differs from ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.cluster.mail import FAILED, LOADING, READY, Link, Mail, Report
from engine.serving.scheduler import Changes
from engine.serving.trace import ArrivalRow, Order, Tick

#: what the shortest round trip that was seen grows by per report, so that a drift is followed
_FORGET = 1.002


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a replica may be silent, in seconds, before it counts as lost."""

    #: a process that died is noticed at once; this is for one that hangs, or a node out of reach.
    #: compiling may keep a living one from answering for some seconds
    answer_s: float = 30.0
    step_s: float = 300.0  # for one step or prefill
    load_s: float = 1800.0  # for loading and compiling


@dataclass(slots=True)
class Member:
    """A replica. Times are nanoseconds on the fleet's clock unless they are said to be its own."""

    number: int
    link: Link
    started_ns: int
    report: Report = field(default_factory=lambda: Report(LOADING, "Starting"))
    orders: list[Order] = field(default_factory=list)  # to be sent with the next mail
    cancels: list[int] = field(default_factory=list)
    posted_ns: int | None = None  # when the mail went out whose report is awaited
    heard_ns: int = 0
    draining: bool = False
    _offset_ns: int = 0  # fleet's clock less its own
    _round_trip_ns: float = float("inf")

    @property
    def ready(self) -> bool:
        return self.report.phase == READY

    @property
    def failed(self) -> bool:
        return self.report.phase == FAILED

    def post(self, now_ns: int) -> None:
        """Send what there is to send."""
        assert self.posted_ns is None
        by = -self._offset_ns
        mail = Mail(tuple(_order(order, by) for order in self.orders), tuple(self.cancels))
        self.orders, self.cancels = [], []
        self.posted_ns = now_ns
        self.link.post(mail)

    def take(self, report: Report, received_ns: int) -> Changes:
        """A report came. What it tells, under the fleet's clock and this replica's number."""
        self.posted_ns, self.heard_ns = None, received_ns
        self.report = report._replace(changes=Changes([], [], [], []))
        round_trip = report.received_ns - report.sent_ns
        self._round_trip_ns *= _FORGET
        if report.phase == READY and round_trip <= self._round_trip_ns:
            self._round_trip_ns = round_trip
            self._offset_ns = received_ns - round_trip // 2 - report.now_ns
        told, by = report.changes, self._offset_ns
        return told._replace(
            arrivals=[_arrival(row, by, self.number) for row in told.arrivals],
            ticks=[_tick(tick, by, self.number) for tick in told.ticks],
        )

    def shift(self, by: int) -> None:
        """The fleet's clock shows `by` more from now on."""
        self.started_ns += by
        self.heard_ns += by
        self._offset_ns += by
        if self.posted_ns is not None:
            self.posted_ns += by

    def overdue(self, now_ns: int, patience: Patience) -> str:
        """Why it counts as lost, as the end of a sentence; empty where it does not."""
        if self.report.phase == LOADING:
            if now_ns - self.started_ns > patience.load_s * 1e9:
                return f"it was not ready after {patience.load_s:.0f} s"
        elif self.report.at_work_ns > patience.step_s * 1e9:
            return f"one of its steps took more than {patience.step_s:.0f} s"
        elif self.posted_ns is not None and now_ns - self.posted_ns > patience.answer_s * 1e9:
            return f"it did not answer for {patience.answer_s:.0f} s"
        return ""


def _shifted(time_ns: int | None, by: int) -> int | None:
    return None if time_ns is None else time_ns + by


def _order(order: Order, by: int) -> Order:
    return order._replace(
        arrival_ns=order.arrival_ns + by,
        deadline_ns=_shifted(order.deadline_ns, by),
        timeout_ns=_shifted(order.timeout_ns, by),
    )


def _arrival(row: ArrivalRow, by: int, number: int) -> ArrivalRow:
    return row._replace(
        replica=number,
        arrival_ns=row.arrival_ns + by,
        deadline_ns=_shifted(row.deadline_ns, by),
        timeout_ns=_shifted(row.timeout_ns, by),
        admitted_ns=_shifted(row.admitted_ns, by),
        prefilled_ns=_shifted(row.prefilled_ns, by),
        first_token_ns=_shifted(row.first_token_ns, by),
        ended_ns=_shifted(row.ended_ns, by),
    )


def _tick(tick: Tick, by: int, number: int) -> Tick:
    row = tick.row
    row = row._replace(replica=number, begin_ns=row.begin_ns + by, end_ns=row.end_ns + by)
    return tick._replace(row=row)
