"""What a long training run tells the outside, and how the outside ends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import DecodeError


@dataclass(frozen=True, kw_only=True)
class PairProgress:
    """A sign of life from the recipe."""

    phase: str
    """`corpus`, `tokenizer`, `target`, `generate`, `draft`, `distil`, `ngram`, `head` or
    `evaluate`."""
    fraction: float
    """Share of this phase that is done, 0 to 1."""
    tokens: int = 0
    """Tokens trained on (or generated) in this phase so far."""
    loss: float | None = None
    """Recent training loss, nats per token."""
    tokens_per_second: float | None = None
    message: str = ""


OnProgress = Callable[[PairProgress], None]
ShouldStop = Callable[[], bool]


class TrainingFailed(DecodeError):  # noqa: N818 - beside TrainingStopped
    """A run that cannot go on: a loss that is no number, a full disk. It says what is kept."""


class TrainingStopped(Exception):  # noqa: N818 - a request fulfilled, not an error
    """The caller asked for an end; a checkpoint has been written and the run can be resumed."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train: minutes of wall-clock, a number of tokens, or whichever ends first.

    Learning rate, sequence length and depth follow `fraction`, so a run ends annealed and on
    time however fast the machine turns out to be. Token budgets make runs repeatable bit for bit.
    """

    minutes: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.tokens) if value is not None]
        if not given or min(given) <= 0:
            raise ValueError(
                "a budget needs minutes or tokens above zero, "
                f"not minutes={self.minutes} and tokens={self.tokens}"
            )

    def fraction(self, *, seconds: float, tokens: int) -> float:
        """Return the share of the budget that is spent, at most 1."""
        spent = 0.0
        if self.minutes is not None:
            spent = seconds / (60 * self.minutes)
        if self.tokens is not None:
            spent = max(spent, tokens / self.tokens)
        return min(1.0, spent)


class Stopwatch:
    """Seconds of work, carried over from one start of the process to the next."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._begun = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Seconds so far, those of earlier starts included."""
        return time.monotonic() - self._begun


def trapezoid(fraction: float, *, warmup: float, decay: float) -> float:
    """Return the learning-rate factor: up over `warmup`, flat, down to zero over `decay`."""
    if fraction < warmup:
        return max(fraction, 0.1 * warmup) / warmup
    return min(1.0, max(0.0, 1 - fraction) / decay)
