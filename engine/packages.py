"""Packages of compiled forwards: which a run needs, where they lie, and why they may not be."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.models import LoadedModel
from engine.packing import can_pack
from engine.parts import Part
from engine.paths import cache_folder

#: kinds of compiled forwards. torch.export fixes sizes of 1, so one node alone is its own; nodes of
#: several slots come packed
SINGLE, TREE, PACKED = "single", "tree", "packed"
#: what the compiler is told
INDUCTOR = {
    "freezing": True,
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP,ATEN",
}
_WHOLE = Part()


def kinds_for(batch: int) -> tuple[str, ...]:
    """The compiled forwards a run with this many slots needs."""
    return (SINGLE, TREE) if batch == 1 else (SINGLE, TREE, PACKED)


def package_path(loaded: LoadedModel, kind: str, part: Part = _WHOLE) -> Path:
    """Where the package lies; the name hashes all that its code depends on."""
    parts: tuple[Any, ...] = (
        loaded.content_hash, type(loaded.model).__name__, loaded.dtype, loaded.window, kind,
        torch.__version__, transformers.__version__, torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(), _processor(), sorted(INDUCTOR.items()), 3,
    )  # fmt: skip
    if not part.whole:
        parts += (part.key,)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache_folder() / "compiled" / f"{loaded.name.replace('/', '--')}-{kind}-{digest}.pt2"


def why_not(loaded: LoadedModel | None = None, batch: int = 1) -> str:
    """Why compiled forwards are not to be had here; empty if they should be."""
    if loaded is not None and loaded.device != "cpu":
        return f"Compiled forwards are made for the CPU, not for {loaded.device}."
    if loaded is not None and batch > 1 and not can_pack(loaded.attention):
        return f"Batches of {loaded.name} cannot be compiled: its attention does not run packed."
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return "No C++ compiler was found; install g++ to compile forwards."
    return ""


def at_hand(loaded: LoadedModel, batch: int, part: Part = _WHOLE) -> bool:
    """Whether all packages are there already."""
    if loaded.device != "cpu" or (batch > 1 and not can_pack(loaded.attention)):
        return False
    return all(package_path(loaded, kind, part).is_file() for kind in kinds_for(batch))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if "model name" in line), "unknown"
    )
