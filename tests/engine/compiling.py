"""What tests of compiled forwards share: a model that compiles in little time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import MistralConfig

from engine.models import LoadedModel, load_model
from tests.engine.test_models import save

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler: compiled forwards cannot be made here"
)
SIZE = 64


def square(folder: Path) -> LoadedModel:
    """A tiny model, sliding window and grouped keys included, with matrices of two shapes.

    The compiler writes, builds and times kernels for every shape, which takes it seconds each.
    """
    config = MistralConfig(
        vocab_size=SIZE, hidden_size=SIZE, intermediate_size=SIZE, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=160,
        sliding_window=24, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return load_model(str(save(folder, config, vocab_size=SIZE)), device="cpu")
