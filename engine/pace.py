"""How fast this machine is just now: what steps take by what their passes were measured to take.

Passes are measured beforehand (engine/costs.py), on a machine that may since have become slower or
faster, and a method does something around each of them. Both are learned while decoding, apart for
drafting and for the rest of a step. What slows both alike moves predictions and no decision.
"""

from __future__ import annotations

from time import perf_counter

#: a method's own work in milliseconds, before anything is learned: for each draft pass, for each
#: further request in it; for a step without and with trees, and for each further request in that
PASS_MS = 0.1
EACH_MS = 0.04
EACH_REST_MS = (0.06, 0.08)
REST_MS = (0.15, 0.25)
#: weight of the past in what is predicted with: a machine's pace changes within seconds
_DECAY = 0.9
#: weight of the past in what is decided with
_DECAY_USUAL = 0.98
#: a reading so many times the usual is an interruption (a sleeping machine, say), and cut to that
_MOST = 4.0
#: readings as expected that a ratio starts with: the first ones are often slow
_PRIOR = 4.0
#: a step and what follows it takes at most so many times what it took up to its last verdict
_MOST_AFTER = 1.15
#: how far drafting may seem slower or faster than the rest: its passes are short and few
_SCALES = (0.6, 2.0)


class _Ratio:
    """Measured by expected time, a fading mean."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._measured = self._expected = 0.0
        self.value = 1.0
        self.known = False

    def learn(self, measured: float, expected: float) -> None:
        if not self.known:
            self._measured = self._expected = _PRIOR * expected
        measured = min(measured, _MOST * self.value * expected)
        self._measured = self._decay * self._measured + measured
        self._expected = self._decay * self._expected + expected
        self.value, self.known = self._measured / self._expected, True


class _Speed:
    """How slow drafting and the rest of a step are, each by what was measured beforehand."""

    def __init__(self, decay: float) -> None:
        self._draft, self._rest = _Ratio(decay), _Ratio(decay)

    def learn(self, draft: tuple[float, float], rest: tuple[float, float]) -> None:
        """Measured and expected time of each."""
        if draft[1]:
            self._draft.learn(*draft)
        self._rest.learn(*rest)

    @property
    def draft(self) -> float:
        """Until anything was drafted, what slows one thing slows the other."""
        return self._draft.value if self._draft.known else self._rest.value

    @property
    def rest(self) -> float:
        return self._rest.value


class Pace:
    """Learns from the steps of one request at a time."""

    def __init__(self) -> None:
        self._now, self._usual = _Speed(_DECAY), _Speed(_DECAY_USUAL)
        #: of a step's first draft pass, which all requests share, and of the narrow ones behind it
        self._passes = _Ratio(_DECAY_USUAL), _Ratio(_DECAY_USUAL)
        #: what the last step took, milliseconds; None where others had the machine in between
        self.took_ms: float | None = None
        self._began: float | None = None
        self._ended = 0.0
        self._drafted = 0.0
        self._expected: tuple[float, float] | None = None

    def draft_scale(self, *, later: bool = False) -> float:
        """How much slower a draft pass is than measured, by how much slower the rest of a step is.

        Of a step's first pass, or of a later one.
        """
        least, most = _SCALES
        known = self._passes[later] if self._passes[later].known else self._usual
        slower = known.value if isinstance(known, _Ratio) else known.draft
        return min(max(slower / self._usual.rest, least), most)

    def pass_took(self, took_ms: float, expected_ms: float, *, later: bool) -> None:
        """One draft pass, with the choices around it."""
        self._passes[later].learn(took_ms, expected_ms)

    def expected_ms(self, draft_ms: float, rest_ms: float) -> float:
        """A step's wall time at this pace, from the measured times of its two parts."""
        return self._now.draft * draft_ms + self._now.rest * rest_ms

    def interrupted(self) -> None:
        """The next step does not follow the last one: a request came or went between."""
        self._began = None

    def step_begins(self) -> None:
        """The last step is over; learn from it."""
        now = perf_counter()
        self.took_ms = None
        if self._began is not None and self._expected is not None:
            draft_ms, rest_ms = self._expected
            took = now - self._began
            if self._ended > self._began:  # others may have had the machine since
                took = min(took, _MOST_AFTER * (self._ended - self._began))
            rest = (took - self._drafted) * 1e3
            for speed in (self._now, self._usual):
                speed.learn((self._drafted * 1e3, draft_ms), (rest, rest_ms))
            self.took_ms = took * 1e3
        self._began, self._expected = now, None

    def verdict_comes(self) -> None:
        """The verdict on a tree is there: little is left of the step."""
        self._ended = perf_counter()

    def drafting_ends(self, draft_ms: float, rest_ms: float) -> None:
        """The tree is there: what drafting it was measured to take, and the rest of the step."""
        if self._began is not None:
            self._drafted = perf_counter() - self._began
            self._expected = draft_ms, rest_ms
