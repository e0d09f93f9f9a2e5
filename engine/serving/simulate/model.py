"""One simulated step of a batch: what it brings and what it takes. The scheduler's decoder
(`SimulatedDecoder`) and the fleet (`engine.serving.simulate.fleet`) both step by it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.serving.simulate.acceptance import MeasuredSteps
from engine.serving.simulate.costs import Costs
from engine.serving.simulate.shapes import Choice, Shape


class StepTaken(NamedTuple):
    """A step's choice, its emitted tokens by request, and its parts in milliseconds."""

    choice: Choice
    emitted_B: np.ndarray
    draft_ms: float
    score_ms: float
    rest_ms: float

    @property
    def ms(self) -> float:
        return self.draft_ms + self.score_ms + self.rest_ms


class StepModel(NamedTuple):
    """A method on a pair: its trees, what is accepted of them, what passes cost."""

    shape: Shape
    costs: Costs
    steps: MeasuredSteps

    def step(
        self,
        source_B: np.ndarray,
        position_B: np.ndarray,
        context_B: np.ndarray,
        *,
        budgets_B: np.ndarray | None = None,
        span: int = 0,
    ) -> StepTaken:
        """Requests that walk along `source_B` and are at `position_B` of them, counted on.

        They are in the first `span` slots; 0: in the first ones without a gap.
        """
        batch = len(source_B)
        context = float(context_B.sum()) / batch
        at_B = self.steps.at(source_B, position_B)
        choice = self.shape.choose(at_B, context=context, budgets_B=budgets_B)
        nodes = int(choice.nodes_B.sum())
        score = self.costs.score_ms(np.array([batch + nodes]), batch, context, span=span)
        return StepTaken(
            choice,
            choice.accepted_B.astype(np.int64) + 1,
            draft_ms=self.costs.draft_ms(choice.draft_rows, batch, context),
            score_ms=float(score[0]),
            rest_ms=self.costs.rest_ms(batch, nodes),
        )
