"""What a viewer sees of a load run under way: events folded into one state of bounded size.

Beside `workbench.snapshot`, which is about runs: it keeps every token of every request, and a load
run has no end of them. Here are the requests that wait or run, the last that ended, the last steps,
and running figures.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from engine.serving.trace import ArrivalRow, LaneRow, Tick
from workbench.events import Event, LoadFinished, LoadStarted, Progress
from workbench.loading import definitions as of
from workbench.loading.latencies import Latency
from workbench.loading.running import RunningLatencies
from workbench.loading.spec import LoadSpec
from workbench.measuring import ACTIVE, IDLE, RUNNING, STARTING, TimeLeft

#: steps, ended requests and stretches of lanes that are kept whole
KEPT_TICKS, KEPT_ENDED, KEPT_LANES = 600, 300, 2000


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests stand where."""

    arrived: int = 0
    waiting: int = 0
    running: int = 0
    completed: int = 0
    refused: int = 0
    cancelled: int = 0
    timed_out: int = 0
    lost: int = 0

    @property
    def ended(self) -> int:
        """However they ended."""
        return self.arrived - self.waiting - self.running


@dataclass(frozen=True, slots=True)
class Loading:
    """The state at one moment. `version` rises with every change."""

    version: int = 0
    status: str = IDLE  # idle, starting, running, or a RunStatus
    spec: LoadSpec | None = None
    run_id: str = ""
    mode: str = ""
    slots: int = 0  # of each pair
    pairs: tuple[str, ...] = ()
    num_requests: int | None = None  # that will come, where known
    progress: Progress | None = None  # the long thing under way before requests come
    now_ns: int = 0  # the latest time on the scheduler's clock that was told
    counts: Counts = field(default_factory=Counts)
    live: list[ArrivalRow] = field(default_factory=list)  # waiting or under way, as they came
    ended: list[ArrivalRow] = field(default_factory=list)  # the last `KEPT_ENDED`
    ticks: list[Tick] = field(default_factory=list)  # the last `KEPT_TICKS`
    num_ticks: int = 0  # all of them
    lanes: list[LaneRow] = field(default_factory=list)  # the last `KEPT_LANES`
    output_tokens: int = 0
    latencies: dict[str, Latency] = field(default_factory=dict)  # so far, right within 1%
    fraction: float | None = None  # of the whole, 0 to 1
    seconds_left: float | None = None  # until the last request has come and ended
    metrics: dict[str, Any] = field(default_factory=dict)  # of the whole run, once it has ended
    error: str = ""  # a sentence, where it failed or its worker died
    wrong_input: bool = False  # the error is about the spec, and no run was kept

    @property
    def active(self) -> bool:
        """Whether it is under way."""
        return self.status in ACTIVE

    @property
    def output_throughput(self) -> float:
        """Kept tokens per second over the kept steps."""
        if len(self.ticks) < 2:
            return 0.0
        span = self.ticks[-1].row.end_ns - self.ticks[0].row.begin_ns
        kept = sum(share.kept for tick in self.ticks for share in tick.shares)
        return kept / span * 1e9 if span > 0 else 0.0


class LoadState:
    """Folds events. Not thread-safe by itself: its owner holds a lock."""

    def __init__(self) -> None:
        self._state = Loading()
        self._clear()

    def _clear(self) -> None:
        self._live: dict[int, ArrivalRow] = {}
        self._ended: deque[ArrivalRow] = deque(maxlen=KEPT_ENDED)
        self._ticks: deque[Tick] = deque(maxlen=KEPT_TICKS)
        self._lanes: deque[LaneRow] = deque(maxlen=KEPT_LANES)
        self._latencies = RunningLatencies()
        self._ends: dict[str, int] = {}
        self._lost: set[int] = set()
        self._arrived = self._num_ticks = self._tokens = self._now_ns = 0
        self._left = TimeLeft()

    @property
    def active(self) -> bool:
        return self._state.active

    @property
    def version(self) -> int:
        return self._state.version

    def begin(self, spec: LoadSpec) -> None:
        """Forget the last one; `spec` is being started."""
        self._clear()
        self._state = Loading(version=self.version + 1, status=STARTING, spec=spec)

    def fail(self, status: str, message: str, *, wrong_input: bool = False) -> None:
        """It ended without saying so itself."""
        self._change(status=status, error=message, wrong_input=wrong_input, progress=None)

    def fold(self, event: Event, now: float | None = None) -> None:
        """Take in one event."""
        match event:
            case ArrivalRow():
                self._take_arrival(event)
            case Tick():
                self._take_tick(event)
            case LaneRow():
                self._lanes.append(event)
            case Progress():
                self._change(progress=event)
            case LoadStarted():
                self._change(
                    status=RUNNING, progress=None, run_id=event.run_id, mode=event.mode,
                    num_requests=event.num_requests, slots=event.slots, pairs=event.pairs,
                )  # fmt: skip
            case LoadFinished():
                self._change(
                    status=str(event.status), progress=None, run_id=event.run_id,
                    metrics=event.metrics, error=event.message,
                )  # fmt: skip
        if isinstance(event, ArrivalRow | Tick | LaneRow):
            self._change()
            fraction = self._fraction()
            if fraction is not None:
                self._left.note(fraction, time.monotonic() if now is None else now)

    def snapshot(self, now: float | None = None) -> Loading:
        """A copy that later events leave alone."""
        moment = time.monotonic() if now is None else now
        return replace(
            self._state,
            now_ns=self._now_ns,
            counts=self._counts(),
            live=sorted(self._live.values(), key=lambda row: (row.arrival_ns, row.request)),
            ended=list(self._ended),
            ticks=list(self._ticks),
            num_ticks=self._num_ticks,
            lanes=list(self._lanes),
            output_tokens=self._tokens,
            latencies=self._latencies.latencies(),
            fraction=self._fraction(),
            seconds_left=self._left.seconds(moment) if self.active else None,
        )

    # --- inside ---

    def _change(self, **changes: Any) -> None:
        self._state = replace(self._state, version=self.version + 1, **changes)

    def _take_arrival(self, row: ArrivalRow) -> None:
        if row.request in self._lost:  # begun again elsewhere
            self._lost.discard(row.request)
            self._ends[of.LOST] -= 1
        elif row.request not in self._live:
            self._arrived += 1
        times = (row.arrival_ns, row.prefilled_ns, row.first_token_ns, row.ended_ns)
        self._now_ns = max(self._now_ns, *(at for at in times if at is not None))
        if row.reason is None:
            self._live[row.request] = row
            return
        self._live.pop(row.request, None)
        self._ended.append(row)
        if row.reason == of.LOST:
            self._lost.add(row.request)
        self._ends[row.reason] = self._ends.get(row.reason, 0) + 1
        self._latencies.ended(row)

    def _take_tick(self, tick: Tick) -> None:
        self._ticks.append(tick)
        self._num_ticks += 1
        self._now_ns = max(self._now_ns, tick.row.end_ns)
        self._tokens += sum(share.kept for share in tick.shares)
        self._latencies.tick(tick)

    def _counts(self) -> Counts:
        running = sum(row.admitted_ns is not None for row in self._live.values())
        return Counts(
            arrived=self._arrived,
            waiting=len(self._live) - running,
            running=running,
            completed=sum(self._ends.get(reason, 0) for reason in of.COMPLETED),
            refused=self._ends.get(of.REFUSED, 0),
            cancelled=self._ends.get(of.CANCELLED, 0),
            timed_out=self._ends.get(of.TIMED_OUT, 0),
            lost=self._ends.get(of.LOST, 0),
        )

    def _fraction(self) -> float | None:
        state = self._state
        if state.num_requests:
            return min(1.0, sum(self._ends.values()) / state.num_requests)
        if state.spec is not None and state.spec.duration_s:
            return min(1.0, self._now_ns / 1e9 / state.spec.duration_s)
        return None
