"""A target of two layers that knows four songs, and text of them.

All songs share three notes in a row, and only the fourth tells which it is. So two tokens of
context, a trigram's, do not say what follows the shared notes, and a hidden state does.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from engine.models import LoadedModel
from engine.training.batches import TokenArray
from engine.training.heads import HeadData
from tests.engine.tiny import CONFIGS, tiny

SHARED = (1, 2, 3)
LAST = (10, 11, 12, 13)
ROW = 32


def songs(*, rows: int, seed: int) -> np.ndarray:
    """Rows (R, ROW), each one song from some note on."""
    chosen = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        song = [*SHARED, LAST[chosen.integers(len(LAST))]]
        start = chosen.integers(4)
        found.append([song[(start + at) % 4] for at in range(ROW)])
    return np.array(found, np.int32)


def stream(*, rows: int, seed: int) -> TokenArray:
    """Such rows, one after the other."""
    return songs(rows=rows, seed=seed).reshape(-1)


def head_data(*, written: bool = False) -> HeadData:
    """Text to train on and to be judged by."""
    return HeadData(
        stream(rows=400, seed=1),
        stream(rows=40, seed=2),
        songs(rows=40, seed=3) if written else None,
        songs(rows=8, seed=4) if written else None,
    )


@cache
def singer(seed: int = 0) -> LoadedModel:
    """The target, trained for a second or two."""
    loaded = tiny("llama")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"], attn_implementation="sdpa")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(80):
        ids = torch.from_numpy(songs(rows=16, seed=100 + step).astype(np.int64))
        model(ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    loaded.model = model.eval().requires_grad_(False)
    loaded.name, loaded.content_hash = f"singer-{seed}", f"{seed:016x}"
    return loaded
