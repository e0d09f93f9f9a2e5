"""A tree's figures on a run: what it would have accepted, and how fast that would have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.shapes import Shape
from workbench import metrics
from workbench.whatif.ranks import RunRanks
from workbench.whatif.times import EXTRAPOLATED, INTERPOLATED, MEASURED, PassTimes, StepTime
from workbench.whatif.walk import Course, Walk, walk


@dataclass(frozen=True, slots=True)
class Outcome:
    """Totals over the requests of a run, on one course."""

    steps: int
    emitted: int
    histogram: list[int]  # steps by number of accepted nodes
    kept: int

    @property
    def tokens_per_step(self) -> float:
        return metrics.tokens_per_step(self.emitted, self.steps)


@dataclass(frozen=True, slots=True)
class Prediction:
    """`low` and `high` are the same where `exact`."""

    name: str
    shape: Shape
    low: Outcome
    high: Outcome
    exact: bool
    step: StepTime | None  # None where pass times are not known
    plain_ms: float
    requests: list[int]
    walks: list[Walk]  # one for each request

    @property
    def nodes(self) -> int:
        """Drafted nodes, the root not counted."""
        return self.shape.num_nodes - 1

    def tokens_per_second(self, outcome: Outcome) -> float | None:
        """Kept tokens by the predicted time of all steps."""
        if self.step is None:
            return None
        return metrics.tokens_per_second(outcome.kept, round(outcome.steps * self.step.ms * 1e6))

    def speedup(self, outcome: Outcome) -> float | None:
        """Against plain decoding at one plain step per token; an estimate."""
        if self.step is None:
            return None
        return metrics.speedup(outcome.kept * self.plain_ms, outcome.steps * self.step.ms)

    @property
    def how_timed(self) -> str:
        """The weaker of how score and draft times are known; empty without them."""
        if self.step is None:
            return ""
        ways = {self.step.score.how, self.step.draft.how}
        return next(way for way in (EXTRAPOLATED, INTERPOLATED, MEASURED) if way in ways)


def predict(
    shape: Shape, ranks: RunRanks, times: PassTimes | None = None, *, name: str = ""
) -> Prediction:
    """The tree's figures on the run behind `ranks`."""
    walks = [walk(shape, request) for request in ranks.requests]
    kept = ranks.num_tokens
    return Prediction(
        name=name,
        shape=shape,
        low=_outcome([w.low for w in walks], kept),
        high=_outcome([w.high for w in walks], kept),
        exact=all(w.exact for w in walks),
        step=times.step(shape) if times is not None and times.known else None,
        plain_ms=times.plain if times is not None else 0.0,
        requests=[request.request for request in ranks.requests],
        walks=walks,
    )


def _outcome(courses: Sequence[Course], kept: int) -> Outcome:
    histogram: list[int] = []
    for course in courses:
        for count in course.accepted_S:
            histogram.extend([0] * (count + 1 - len(histogram)))
            histogram[count] += 1
    return Outcome(
        steps=sum(course.num_steps for course in courses),
        emitted=sum(course.emitted for course in courses),
        histogram=histogram,
        kept=kept,
    )
