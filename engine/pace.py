"""How fast this machine is just now: what steps take by what their passes were measured to take.

Passes are measured beforehand (engine/costs.py), on a machine that may since have become slower or
faster, and a method does something around each of them. Both are learned while decoding, apart for
drafting and for the rest of a step. What slows both alike moves predictions and no decision.
"""

from __future__ import annotations

from time import perf_counter

#: a method's own work in milliseconds, before anything is learned: for each draft pass, and for a
#: step without and with a tree
PASS_MS = 0.1
REST_MS = (0.15, 0.25)
#: weight of the past in the ratios
_DECAY = 0.98
#: a reading so many times the usual is an interruption (a sleeping machine, say), and cut to that
_MOST = 4.0
#: how far drafting may seem slower or faster than the rest: its passes are short and few
_SCALES = (0.6, 2.0)


class _Ratio:
    """Measured by expected time, a fading mean."""

    def __init__(self) -> None:
        self._measured = self._expected = 0.0
        self.now = 1.0

    def learn(self, measured: float, expected: float) -> None:
        if self._expected:
            measured = min(measured, _MOST * self.now * expected)
        self._measured = _DECAY * self._measured + measured
        self._expected = _DECAY * self._expected + expected
        self.now = self._measured / self._expected


class Pace:
    """Learns from the steps of one request at a time."""

    def __init__(self) -> None:
        self._draft, self._rest = _Ratio(), _Ratio()
        self._began: float | None = None
        self._drafted = 0.0
        self._expected: tuple[float, float] | None = None

    @property
    def draft_scale(self) -> float:
        """How much slower drafting is than measured, by how much slower the rest of a step is."""
        least, most = _SCALES
        return min(max(self._draft.now / self._rest.now, least), most)

    def expected_ms(self, draft_ms: float, rest_ms: float) -> float:
        """A step's wall time at this pace, from the measured times of its two parts."""
        return self._draft.now * draft_ms + self._rest.now * rest_ms

    def interrupted(self) -> None:
        """The next step does not follow the last one: a request came or went between."""
        self._began = None

    def step_begins(self) -> None:
        """The last step is over; learn from it."""
        now = perf_counter()
        if self._began is not None and self._expected is not None:
            draft_ms, rest_ms = self._expected
            if draft_ms:
                self._draft.learn(self._drafted * 1e3, draft_ms)
            self._rest.learn((now - self._began - self._drafted) * 1e3, rest_ms)
        self._began, self._expected = now, None

    def drafting_ends(self, draft_ms: float, rest_ms: float) -> None:
        """The tree is there: what drafting it was measured to take, and the rest of the step."""
        if self._began is not None:
            self._drafted = perf_counter() - self._began
            self._expected = draft_ms, rest_ms
