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
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = _system_error(error)
        if reason is None:
            raise
        former = (
            "the checkpoint before it is kept. Make room and start the same command again: it goes "
            "on from there."
            if path.exists()
            else "there is none before it. Make room and start the same command again."
        )
        raise TrainingFailed(
            f"The checkpoint {path} cannot be written ({reason.strerror or reason}); {former}"
        ) from error


def _system_error(error: BaseException | None) -> OSError | None:
    """What the system said: torch's writer puts an error of its own over it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the state at `path`, or None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
