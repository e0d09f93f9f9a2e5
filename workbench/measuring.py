"""What a viewer sees of long work that is no run: how far it is and how long it will take.

A comparison, a sweep, a study, a training.

Beside `workbench.snapshot`, which is about runs: a measurement leaves the last run in view.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workbench.events import Event, MeasuringFinished, MeasuringStarted, Progress

if TYPE_CHECKING:
    from workbench.comparing.result import CompareSpec
    from workbench.training.spec import TrainSpec

IDLE = "idle"
STARTING = "starting"
RUNNING = "running"
ACTIVE = (STARTING, RUNNING)

#: the phase whose fractions are of the whole; those of others are of the phase alone
MEASURE = "measure"
#: so much must be done before its pace says anything
_LEAST_DONE = 0.02


@dataclass(frozen=True, slots=True)
class Measuring:
    """The state at one moment."""

    kind: str = ""  # compare, sweep, tune or train
    status: str = IDLE  # idle, starting, running, or as a comparison ends
    spec: CompareSpec | TrainSpec | None = None
    progress: Progress | None = None  # what goes on just now
    fraction: float = 0.0  # of the whole, 0 to 1
    seconds_left: float | None = None  # by the pace so far; None: not known yet
    result: str = ""  # the comparison's id, or the name of the sweep, study or training
    error: str = ""  # a sentence, where it failed or its worker died
    wrong_input: bool = False  # the error is about the spec, and nothing was measured

    @property
    def active(self) -> bool:
        """Whether it is under way."""
        return self.status in ACTIVE


@dataclass(slots=True)
class TimeLeft:
    """How long the rest will take, by the pace since measuring began."""

    _first: tuple[float, float] | None = None  # clock in seconds, fraction
    _last: tuple[float, float] = (0.0, 0.0)

    def note(self, fraction: float, now: float) -> None:
        """So much is done at `now`."""
        self._first = self._first or (now, fraction)
        self._last = (now, fraction)

    def seconds(self, now: float) -> float | None:
        """Seconds left at `now`; None while too little is done to tell."""
        if self._first is None:
            return None
        done, took = self._last[1] - self._first[1], self._last[0] - self._first[0]
        if done < _LEAST_DONE or took <= 0:
            return None
        left = (1.0 - self._last[1]) * took / done
        return max(0.0, left - (now - self._last[0]))


@dataclass(slots=True)
class MeasuringState:
    """Folds events. Not thread-safe by itself: its owner holds a lock."""

    _state: Measuring = field(default_factory=Measuring)
    _left: TimeLeft = field(default_factory=TimeLeft)

    @property
    def active(self) -> bool:
        return self._state.active

    def begin(self, kind: str, spec: CompareSpec | TrainSpec) -> None:
        """Forget the last one; `spec` is being started."""
        self._state = Measuring(kind=kind, status=STARTING, spec=spec)
        self._left = TimeLeft()

    def fail(self, status: str, message: str, *, wrong_input: bool = False) -> None:
        """It ended without saying so itself."""
        self._state = replace(
            self._state, status=status, error=message, wrong_input=wrong_input, progress=None
        )

    def fold(self, event: Event, now: float | None = None) -> None:
        """Take in one event; those of the arms' runs say nothing here."""
        match event:
            case Progress():
                self._state = replace(self._state, progress=event)
                if event.phase == MEASURE and event.fraction is not None:
                    self._state = replace(self._state, fraction=event.fraction)
                    self._left.note(event.fraction, time.monotonic() if now is None else now)
            case MeasuringStarted():
                self._state = replace(self._state, status=RUNNING, result=event.result)
            case MeasuringFinished():
                self._state = replace(
                    self._state,
                    status=str(event.status),
                    result=event.result,
                    error=event.message,
                    progress=None,
                )

    def snapshot(self, now: float | None = None) -> Measuring:
        """The state, with the time left from `now`."""
        if not self._state.active:
            return self._state
        moment = time.monotonic() if now is None else now
        return replace(self._state, seconds_left=self._left.seconds(moment))
