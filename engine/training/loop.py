"""The loop that every training run shares: step, report, checkpoint, stop, go on."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Protocol

from engine.training.checkpoint import load_checkpoint, save_checkpoint
from engine.training.progress import (
    Budget,
    OnProgress,
    PairProgress,
    ShouldStop,
    Stopwatch,
    TrainingStopped,
)

logger = logging.getLogger(__name__)


class Meter:
    """How far a run has come, how fast it goes and how well it does."""

    def __init__(self, budget: Budget) -> None:
        self.tokens = self.steps = 0
        self.loss: float | None = None
        """Running mean of the training loss, nats per token."""
        self.rate: float | None = None
        """Running mean of tokens per second."""
        self.ended = False
        """Whether the run ends before its budget does."""
        self._budget = budget
        self._watch = Stopwatch()

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent; 1 for a run that has ended early."""
        if self.ended:
            return 1.0
        return self._budget.fraction(seconds=self._watch.seconds, tokens=self.tokens)

    def note(self, *, loss: float, tokens: int, seconds: float) -> None:
        """Count one step."""
        self.tokens, self.steps = self.tokens + tokens, self.steps + 1
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        rate = tokens / seconds
        self.rate = rate if self.rate is None else 0.9 * self.rate + 0.1 * rate

    def progress(self, phase: str, message: str) -> PairProgress:
        """Return a sign of life."""
        return PairProgress(
            phase=phase,
            fraction=self.fraction,
            tokens=self.tokens,
            loss=self.loss,
            tokens_per_second=self.rate,
            message=message,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a later start needs to count on."""
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "loss": self.loss,
            "seconds": self._watch.seconds,
            "ended": self.ended,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count on from `state_dict`."""
        self.tokens, self.steps, self.loss = state["tokens"], state["steps"], state["loss"]
        self.ended = state.get("ended", False)
        self._watch = Stopwatch(state["seconds"])


class Lasting(Protocol):
    """What the loop reads of a recipe."""

    @property
    def device(self) -> str:
        """Where it trains."""

    @property
    def checkpoint_seconds(self) -> float:
        """From one checkpoint to the next."""


class Run(Protocol):
    """A training run between two steps; everything in it goes into its state."""

    meter: Meter

    @property
    def recipe(self) -> Lasting:
        """How it trains."""

    def step(self) -> None:
        """Take one optimiser step and note it."""

    def progress(self) -> PairProgress:
        """Return a sign of life."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the next step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""


def run_to_end(
    run: Run,
    *,
    checkpoint: Path,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> None:
    """Step until the budget is spent; takes up `checkpoint` where one lies there.

    Raises:
        TrainingStopped: `should_stop` said so; the checkpoint is up to date.
    """
    state = load_checkpoint(checkpoint, device=run.recipe.device)
    if state is not None:
        run.load_state_dict(state)
        logger.info("took up %s at %.1f%%", checkpoint, 100 * run.meter.fraction)
    saved = time.monotonic()
    while run.meter.fraction < 1:
        if should_stop():
            save_checkpoint(checkpoint, run.state_dict())
            raise TrainingStopped(str(checkpoint))
        run.step()
        on_progress(run.progress())
        if time.monotonic() - saved > run.recipe.checkpoint_seconds:
            save_checkpoint(checkpoint, run.state_dict())
            saved = time.monotonic()
    save_checkpoint(checkpoint, run.state_dict())
