"""Checkpoints that survive a kill: written beside the old one, then put in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.training.progress import TrainingFailed


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, dicts and lists of them) in one atomic move.

    Raises:
        TrainingFailed: the disk is full, or the folder cannot be written to; what was at `path`
            is as it was.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        former = "the checkpoint before it is kept" if path.exists() else "there is none before it"
        raise TrainingFailed(
            f"The checkpoint {path} cannot be written ({error.strerror or error}); {former}. "
            "Make room and start the same command again: it goes on from there."
        ) from error


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the state at `path`, or None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
