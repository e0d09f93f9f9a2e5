"""What a model was made of, for its card."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from engine.training.card import PYTHON_LICENCE
from engine.training.checkpoint import load_checkpoint
from engine.training.corpus import Split


def trained(checkpoint: Path) -> dict[str, Any]:
    """Return how long a run was and how it ended; nothing known where there is no checkpoint."""
    state = load_checkpoint(checkpoint) or {}
    return {key: state.get(key) for key in ("tokens", "steps", "seconds", "loss")}


def corpus_account(
    parts: Split, *, num_tokens: int, unit: str = "tokens", from_library: bool
) -> dict[str, Any]:
    """Return what the text was, for a card; `num_tokens` are those to train on."""
    tests = [file for file in parts.train if file.is_test]
    return {
        "description": (
            f"The sources of Python {platform.python_version()}'s standard library with its "
            f"tests: {len(parts.train)} files ({len(tests)} of them tests), "
            f"{num_tokens:,} {unit}; {len(parts.held_out)} files held out."
            if from_library
            else f"{len(parts.train)} files given with --text, {num_tokens:,} {unit}."
        ),
        "licence": PYTHON_LICENCE if from_library else "That of the text it was trained on.",
        "train_files": len(parts.train),
        "train_tokens": num_tokens,
        "held_out_files": [file.path for file in parts.held_out],
    }
