"""What a step of a static tree would take, from measured pass times.

What was not measured is fitted and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engine.shapes import Shape

MEASURED, INTERPOLATED, EXTRAPOLATED = "measured", "interpolated", "extrapolated"


class Timed(NamedTuple):
    """Milliseconds, and how they are known."""

    ms: float
    how: str


class StepTime(NamedTuple):
    """A step of one tree."""

    draft: Timed
    score: Timed
    rest: float

    @property
    def ms(self) -> float:
        return self.draft.ms + self.score.ms + self.rest


def passes_and_rows(shape: Shape) -> tuple[int, int]:
    """Draft passes (levels with a parent), and nodes that run through the draft model."""
    depth = shape.depths()
    return max(depth), len(set(shape.parents_N[1:]))


@dataclass(slots=True)
class PassTimes:
    """Measured pass times of one set-up, in milliseconds."""

    score: dict[int, float] = field(default_factory=dict)  # by nodes, the root included
    draft: dict[tuple[int, int], float] = field(default_factory=dict)  # by passes and rows
    per_pass: float = 0.0  # fitted: a draft pass costs per_pass + rows * per_row
    per_row: float = 0.0
    rest: float = 0.0
    plain: float = 0.0  # a plain step, everything in it
    plain_from: str = ""  # the plain run it was measured on; empty: passes before a run alone
    num_runs: int = 0
    #: all times are the medians by this factor, so that the run itself comes out as it was
    scale: float = 1.0

    @property
    def known(self) -> bool:
        """Whether the step of a tree can be told at all."""
        return bool(self.plain and self.score and (self.draft or self.per_pass))

    def score_ms(self, num_nodes: int) -> Timed:
        """A target pass over so many nodes."""
        sizes = sorted(self.score)
        if num_nodes in self.score:
            return Timed(self.score[num_nodes], MEASURED)
        times = [self.score[size] for size in sizes]
        if sizes[0] < num_nodes < sizes[-1]:
            return Timed(float(np.interp(num_nodes, sizes, times)), INTERPOLATED)
        return Timed(self._beyond(num_nodes, sizes, times), EXTRAPOLATED)

    def _beyond(self, num_nodes: int, sizes: list[int], times: list[float]) -> float:
        """Along the line through all that was measured, from the nearest point on."""
        slope = max(0.0, float(np.polyfit(sizes, times, 1)[0])) if len(sizes) > 1 else 0.0
        near = 0 if num_nodes < sizes[0] else -1
        return max(0.0, times[near] + slope * (num_nodes - sizes[near]))

    def draft_ms(self, passes: int, rows: int) -> Timed:
        """Growing a tree by `passes` draft passes over `rows` nodes together."""
        if not passes:
            return Timed(0.0, MEASURED)
        if (passes, rows) in self.draft:
            return Timed(self.draft[passes, rows], MEASURED)
        counts = [count for count, _ in self.draft]
        inside = bool(counts) and min(counts) <= passes <= max(counts)
        fitted = passes * self.per_pass + rows * self.per_row
        return Timed(fitted, INTERPOLATED if inside else EXTRAPOLATED)

    def step(self, shape: Shape) -> StepTime:
        """A whole step with this tree."""
        return StepTime(
            self.draft_ms(*passes_and_rows(shape)), self.score_ms(shape.num_nodes), self.rest
        )
