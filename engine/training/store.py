"""Scored rows on disk, shard by shard, so that an interrupted run goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from engine.training.progress import (
    Budget,
    OnProgress,
    PairProgress,
    ShouldStop,
    TrainingStopped,
)
from engine.training.teacher import ScoredRows


class TeacherStore:
    """Shards of scored rows in a folder; each is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.seconds = 0.0
        """Time spent on the shards there are."""
        self.tokens = 0
        """Tokens in them."""
        self._size = 0
        while self.path(self._size).exists():
            with safe_open(self.path(self._size), framework="numpy") as file:
                noted = file.metadata()
            self.seconds += float(noted["seconds"])
            self.tokens += int(noted["tokens"])
            self._size += 1

    def __len__(self) -> int:
        return self._size

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def append(self, rows: ScoredRows, *, seconds: float) -> None:
        """Write the next shard in one atomic move."""
        arrays = {name: np.ascontiguousarray(array) for name, array in rows._asdict().items()}
        partial = self.folder / "partial"
        noted = {"seconds": str(seconds), "tokens": str(rows.num_tokens)}
        save_file(arrays, partial, metadata=noted)
        partial.replace(self.path(len(self)))
        self._size += 1
        self.seconds += seconds
        self.tokens += rows.num_tokens

    def load(self) -> list[ScoredRows]:
        """Return all shards."""
        return [ScoredRows(**load_file(self.path(shard))) for shard in range(len(self))]


def fill_store(
    store: TeacherStore,
    make: Callable[[int], ScoredRows],
    budget: Budget,
    *,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> None:
    """Append shards made by `make(number)` until the budget is spent.

    Raises:
        TrainingStopped: `should_stop` said so; the shards made so far are kept.
    """
    while (fraction := budget.fraction(seconds=store.seconds, tokens=store.tokens)) < 1:
        if should_stop():
            raise TrainingStopped(str(store.folder))
        on_progress(
            PairProgress(
                phase="generate",
                fraction=fraction,
                tokens=store.tokens,
                tokens_per_second=store.tokens / store.seconds if store.seconds else None,
                message=f"{len(store)} shards",
            )
        )
        begun = time.monotonic()
        rows = make(len(store))
        store.append(rows, seconds=time.monotonic() - begun)
