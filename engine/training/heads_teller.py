"""Who is told how a training of heads goes: its caller, and its log."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from engine.training.heads import HeadProgress, Hits
from engine.training.heads_log import HeadLog
from engine.training.progress import OnProgress, PairProgress

_STEP_SECONDS = 2.0
"""Between two `step` lines of the log."""


class Teller:
    """Passes signs of life on, and writes the log."""

    def __init__(self, log: HeadLog, on_progress: OnProgress) -> None:
        self._log, self._on_progress = log, on_progress
        self._last = 0.0
        self._place: dict[str, Any] = {"step": 0, "tokens": 0, "fraction": 0.0}

    def say(self, progress: PairProgress) -> None:
        """Tell the caller, and the log now and then."""
        self._on_progress(progress)
        if not isinstance(progress, HeadProgress):
            self._log.write("phase", phase=progress.phase, fraction=progress.fraction)
            return
        self._place = {
            "step": progress.step, "tokens": progress.tokens, "fraction": progress.fraction
        }  # fmt: skip
        if progress.held_out is not None:
            self._log.write("accuracy", **self._place, **progress.held_out.as_json())
        now = time.monotonic()
        if now - self._last > _STEP_SECONDS or progress.fraction == 1:
            self._last = now
            rate = progress.tokens_per_second
            self._log.write("step", **self._place, loss=progress.loss, rate=rate)

    def compare_with(self, ngram: dict[int, Hits]) -> None:
        """Log how often an n-gram is right."""
        self._log.write(
            "ngram", held_out={str(offset): hits.as_json() for offset, hits in ngram.items()}
        )

    def end(self, state: str, message: str) -> None:
        """Close the log, where there is room for a line."""
        with suppress(OSError):
            self._log.write("end", **self._place, state=state, message=message)
