"""Batches for heads: text, run through the frozen target as it is needed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.inside import capture
from engine.models import LoadedModel
from engine.training.batches import BatchSampler, TokenArray
from engine.training.heads import HeadBatch, HeadData, HeadRecipe

_FEWEST = 16
"""Tokens of held-out text below which accuracies would mean nothing."""


def mixed_precision(recipe: HeadRecipe) -> AbstractContextManager[Any]:
    """Autocast where the recipe asks for it."""
    if recipe.dtype == "float32":
        return nullcontext()
    return torch.autocast(recipe.device.partition(":")[0], dtype=getattr(torch, recipe.dtype))


@torch.no_grad()
def look(target: LoadedModel, ids_BN: Tensor, points: tuple[int, ...]) -> HeadBatch:
    """Run the target over rows of text. Nothing of it outlives the batch."""
    logits, states = capture(target.model, points, input_ids=ids_BN, use_cache=False)
    return HeadBatch(ids_BN, {point: state.float() for point, state in states.items()}, logits)


class Rows:
    """Rows of text to train on, in an order fixed by the seed: the corpus's and, for a share of
    the passes, rows the target wrote."""

    def __init__(self, data: HeadData, recipe: HeadRecipe) -> None:
        self._recipe = recipe
        self._corpus = BatchSampler(data.train, seed=recipe.seed)
        self._written = data.written_RT
        self._passes = 0

    def draw(self) -> Tensor:
        """int64 (rows, length)."""
        recipe, number = self._recipe, self._passes
        self._passes += 1
        share = recipe.written_share
        before, after = (int((number + ahead) * share) for ahead in (0, 1))
        if self._written is None or before == after:
            return self._corpus.draw(rows=recipe.rows, length=recipe.length - 1)
        return torch.from_numpy(self._written[self._of_epoch(before)].astype(np.int64))

    def state_dict(self) -> dict[str, Any]:
        return {"corpus": self._corpus.state_dict(), "passes": self._passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._corpus.load_state_dict(state["corpus"])
        self._passes = state["passes"]

    def _of_epoch(self, turn: int) -> np.ndarray:
        """Which written rows make pass number `turn` of theirs."""
        assert self._written is not None
        size = len(self._written)
        chosen = []
        for place in range(turn * self._recipe.rows, (turn + 1) * self._recipe.rows):
            epoch, at = divmod(place, size)
            order = np.random.default_rng([self._recipe.seed, epoch]).permutation(size)
            chosen.append(order[at])
        return np.array(chosen)


def windows(tokens: TokenArray, *, length: int, most: int) -> Tensor:
    """Rows (R, length) spread evenly over a stream, at most `most` tokens in all.

    Raises:
        ValueError: the stream is too short to tell anything.
    """
    if len(tokens) < _FEWEST:
        raise ValueError(
            f"only {len(tokens)} tokens of text are held out; at least {_FEWEST} are needed to see "
            "how well a head does: give more text"
        )
    length = min(length, len(tokens))
    count = max(1, min(most, len(tokens)) // length)
    starts = np.linspace(0, len(tokens) - length, count).astype(np.int64)
    rows = np.stack([tokens[start : start + length] for start in starts])
    return torch.from_numpy(rows.astype(np.int64))


def check(recipe: HeadRecipe, target: LoadedModel, data: HeadData) -> None:
    """Raises ValueError for text or a length that nothing can be trained on."""
    if not 8 <= recipe.length <= target.context_length:
        raise ValueError(
            f"rows of {recipe.length} tokens do not suit {target.name}, whose context is "
            f"{target.context_length}; use a length from 8 to {target.context_length}"
        )
    if recipe.optimiser not in ("adamw", "muon"):
        raise ValueError(f"the optimiser is {recipe.optimiser!r}; use adamw or muon")
    if len(data.train) < recipe.length:
        raise ValueError(
            f"{len(data.train)} tokens of text are too few to train on rows of {recipe.length}; "
            "give more text, or a smaller --length"
        )
    for name in ("train", "held_out"):
        tokens = getattr(data, name)
        if len(tokens) and int(tokens.max()) >= target.vocab_size:
            raise ValueError(
                f"the text holds token {int(tokens.max())}, and {target.name} knows "
                f"{target.vocab_size}: it was encoded for another target"
            )
