"""Times of work: of requests that share it, and of a step's stages.

Stages are timed by the wall clock on a CPU, by events in the device's own stream on a GPU.

Waiting for a GPU after every stage would take away what it gains by running behind the host. Events
cost a microsecond each and are read once, when the step is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

from engine.records import StageTimes


def shared_out(begin_ns: int, end_ns: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """A stretch of time spent on several things at once, as one for each behind the other, by size.

    So their times add up to what passed, and a rate per size is that of all.
    """
    ends = begin_ns + (end_ns - begin_ns) * np.cumsum(sizes) // max(sum(sizes), 1)
    marks = [begin_ns, *map(int, ends)]
    return list(pairwise(marks))


class Clock(Protocol):
    """Times the stages of one step after another."""

    def start(self) -> None:
        """A step begins."""

    def lap(self, stage: str) -> None:
        """A stage ends, the next one begins."""

    def times(self) -> StageTimes:
        """The step is over: nanoseconds of its stages."""


class WallClock:
    """For work that is done when the call returns."""

    def start(self) -> None:
        self._laps: dict[str, int] = {}
        self._start = self._last = perf_counter_ns()

    def lap(self, stage: str) -> None:
        now = perf_counter_ns()
        self._laps[stage] = now - self._last
        self._last = now

    def times(self) -> StageTimes:
        wall = perf_counter_ns() - self._start
        return StageTimes(**self._laps, unaccounted=wall - sum(self._laps.values()))


class EventClock:
    """For work queued on a device: a stage is what passes there between two events.

    An idle device reaches an event at once, so a stage that only the host works in is timed too.
    The one wait is for the last event, at the end of the step: the verdict was read long before,
    and what was queued since, moving cache rows, ran while the host wrote the record.

    `make_event` gives objects with `record()`, `synchronize()` and `elapsed_time(later)` in
    milliseconds, as `torch.cuda.Event` has them.
    """

    def __init__(self, make_event: Callable[[], Any]) -> None:
        self._make_event = make_event
        self._events: list[Any] = []  # made once, recorded again in every step

    def start(self) -> None:
        self._stages: list[str] = []
        self._start = perf_counter_ns()
        self._record(0)

    def lap(self, stage: str) -> None:
        self._stages.append(stage)
        self._record(len(self._stages))

    def times(self) -> StageTimes:
        last = len(self._stages)
        self._events[last].synchronize()
        wall = perf_counter_ns() - self._start
        laps = {
            stage: round(before.elapsed_time(after) * 1e6)
            for stage, before, after in zip(
                self._stages, self._events, self._events[1 : last + 1], strict=False
            )
        }
        # two clocks: the device's may run ahead of the host's by less than a microsecond
        return StageTimes(**laps, unaccounted=max(wall - sum(laps.values()), 0))

    def _record(self, number: int) -> None:
        if number == len(self._events):
            self._events.append(self._make_event())
        self._events[number].record()


def clock_for(device: str) -> Clock:
    """The clock for steps on this device."""
    if not device.startswith("cuda"):
        return WallClock()
    import torch

    where = torch.device(device)

    class _Event(torch.cuda.Event):
        """Recorded in the stream that work for this device is queued on."""

        def record(self, stream: Any = None) -> None:
            super().record(stream or torch.cuda.current_stream(where))

    return EventClock(lambda: _Event(enable_timing=True))
