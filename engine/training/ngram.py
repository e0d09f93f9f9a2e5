"""Trains the trigram of `staged` and `ngram` on text that a model writes by itself.

The paper (2308.04623) took 120M tokens of its draft model at temperature 1.5; fewer do, since only
the likeliest successors of each context are kept and each request's own text is added on the fly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from engine.models import LoadedModel
from engine.ngram import Ngram, count

#: share of the text that is kept back to see how often the trigram is right
_HELD_OUT = 0.03


class NgramTraining(NamedTuple):
    """The model, and how often its first and first two guesses were right on text held out."""

    model: Ngram
    num_tokens: int
    first_right: float
    first_two_right: float


def train_ngram(
    loaded: LoadedModel,
    *,
    num_tokens: int,
    temperature: float = 1.0,
    rows: int = 64,
    length: int = 256,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda written: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> NgramTraining:
    """Let the model write `num_tokens` in texts of `length`, and count what follows what.

    Stopped early, it counts what there is.
    """
    generator = torch.Generator(device=loaded.device).manual_seed(seed)
    length = min(length, loaded.context_length)
    texts: list[np.ndarray] = []
    written = 0
    while written < num_tokens and not (texts and should_stop()):
        texts.append(_write(loaded, rows, length, temperature, generator))
        written += texts[-1].size
        on_progress(written)
    joined = np.concatenate([text.reshape(-1) for text in texts])  # row after row
    kept = len(joined) - max(3, int(_HELD_OUT * len(joined)))
    model = count(joined[:kept], loaded.vocab_size)
    first, two = _right(model, joined[kept:])
    return NgramTraining(model, kept, first, two)


@torch.inference_mode()
def _write(
    loaded: LoadedModel, rows: int, length: int, temperature: float, generator: torch.Generator
) -> np.ndarray:
    """Texts (rows, length) from the beginning of a document on."""
    start = min(loaded.eos_ids, default=0)
    ids = torch.full((rows, 1), start, device=loaded.device)
    cache = DynamicCache(config=loaded.model.config)
    texts = []
    for _ in range(length):
        logits = loaded.model(ids, past_key_values=cache, use_cache=True).logits[:, -1].float()
        ids = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        texts.append(ids)
    return torch.cat(texts, dim=1).cpu().numpy()


def _right(model: Ngram, text: np.ndarray) -> tuple[float, float]:
    """How often the next token is the first, or one of the first two guesses."""
    first = two = 0
    for before, last, token in zip(text[:-2], text[1:-1], text[2:], strict=True):
        guesses = list(model.next(int(before), int(last), 2))
        first += guesses[:1] == [token]
        two += int(token) in guesses
    total = max(len(text) - 2, 1)
    return first / total, two / total
