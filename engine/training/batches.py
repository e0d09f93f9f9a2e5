"""Token streams on disk and in memory, and batches from them in a repeatable order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from engine.training.corpus import SourceFile

TokenArray = np.ndarray[Any, np.dtype[np.int32]]
"""A token stream."""

_FILES_AT_ONCE = 64
"""An encoding takes hundreds of bytes a token: those of a whole corpus would take gigabytes."""


def encode_files(
    files: Sequence[SourceFile],
    tokenizer: PreTrainedTokenizerFast,
    *,
    on_done: Callable[[int], None] = lambda count: None,
) -> TokenArray:
    """Return all files as one int32 token stream, an end-of-text token after each.

    `on_done` is told now and then how many files are done; what it raises ends the work.
    """
    end = tokenizer.eos_token_id
    parts = []
    for at in range(0, len(files), _FILES_AT_ONCE):
        texts = [file.text for file in files[at : at + _FILES_AT_ONCE]]
        for item in tokenizer.backend_tokenizer.encode_batch(texts):
            parts.append(np.array([*item.ids, end], dtype=np.int32))
        on_done(min(at + _FILES_AT_ONCE, len(files)))
    return np.concatenate(parts)


class BatchSampler:
    """Windows of a token stream, each seen once per epoch, in an order fixed by the seed."""

    def __init__(self, tokens: TokenArray, *, seed: int) -> None:
        self._tokens = tokens
        self._seed = seed
        self._length = 0
        self._epoch = 0
        self._next = 0
        self._order = np.zeros(0, dtype=np.int64)

    def draw(self, *, rows: int, length: int) -> Tensor:
        """Return `rows` windows of `length` + 1 tokens, int64 (rows, length + 1).

        A change of length begins a new epoch with windows of that length.

        Raises:
            ValueError: the stream is shorter than one window.
        """
        if length != self._length:
            self._begin(length=length, epoch=self._epoch + 1)
        starts = []
        for _ in range(rows):
            if self._next == len(self._order):
                self._begin(length=length, epoch=self._epoch + 1)
            starts.append(int(self._order[self._next]))
            self._next += 1
        windows = np.stack([self._tokens[start : start + length + 1] for start in starts])
        return torch.from_numpy(windows.astype(np.int64))

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data."""
        return {"length": self._length, "epoch": self._epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to the place that `state_dict` returned."""
        if state["length"]:
            self._begin(length=state["length"], epoch=state["epoch"])
        self._next = state["next"]

    def _begin(self, *, length: int, epoch: int) -> None:
        generator = np.random.default_rng([self._seed, epoch, length])
        room = len(self._tokens) - 1 - length
        if room < 0:
            raise ValueError(
                f"{len(self._tokens)} tokens of text are too few for windows of {length}"
            )
        phase = int(generator.integers(0, min(length, room + 1)))
        starts = np.arange(phase, room + 1, length)
        self._length, self._epoch, self._next = length, epoch, 0
        self._order = generator.permutation(starts)
