"""What every recipe says that makes models from text: which text, where, from which seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """A recipe that reads text and measures what came out."""

    texts: tuple[Path, ...] = ()
    """Files or folders to train on; the standard library when there are none."""
    device: str = "cpu"
    seed: int = 0
    evaluate_tokens: int = 128
    """Length of the target's greedy continuations on which agreement is measured."""


def choose_device(name: str, *, threads: int | None = None) -> str:
    """Return `cuda` or `cpu` for a name or `auto`, and set the number of processor threads.

    Raises:
        ValueError: a GPU is asked for and there is none, or the name is unknown.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch sees no CUDA device; use --device cpu")
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"device {name!r} is not known; use cpu, cuda or auto")
    return name
