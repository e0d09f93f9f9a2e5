"""Ahead-of-time compiled forwards: made once per model, kept on disk, loaded in a moment.

The Hugging Face model itself is exported over (slots, nodes, columns) and compiled by AOTInductor
with its C++ matrix kernels and weights packed for them. A subprocess does it, so that a compiler
that fails or is cancelled takes nothing down. Where it cannot be done, eager serves.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.errors import UserError
from engine.forward import HFStep, Logits
from engine.models import DTYPES, LoadedModel, load_model
from engine.packing import Packing, can_pack
from engine.paths import cache_folder

logger = logging.getLogger(__name__)

#: kinds of compiled forwards. torch.export fixes sizes of 1, so one node alone is its own; nodes of
#: several slots come packed
SINGLE, TREE, PACKED = "single", "tree", "packed"
EXPECTED_SECONDS = 65.0
MAX_NODES, MAX_PACKED, MAX_SLOTS = 512, 4096, 64
#: a wider envelope is taken if it is at least this much cheaper than the exact size
PADDING_GAIN = 0.95
_INDUCTOR = {
    "freezing": True,
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP,ATEN",
}

OnProgress = Callable[[str, str, float | None], None]

#: forwards in use by model and packages: the arms of a comparison share one copy of the weights
_in_use: weakref.WeakKeyDictionary[torch.nn.Module, dict[tuple[Path, ...], CompiledForward]] = (
    weakref.WeakKeyDictionary()
)


def kinds_for(batch: int) -> tuple[str, ...]:
    """The compiled forwards a run with this many slots needs."""
    return (SINGLE, TREE) if batch == 1 else (SINGLE, TREE, PACKED)


def package_path(loaded: LoadedModel, kind: str) -> Path:
    """Where the package lies; the name hashes all that its code depends on."""
    parts = (
        loaded.content_hash, type(loaded.model).__name__, loaded.dtype, loaded.window, kind,
        torch.__version__, transformers.__version__, torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(), _processor(), sorted(_INDUCTOR.items()), 3,
    )  # fmt: skip
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


def at_hand(loaded: LoadedModel, batch: int) -> bool:
    """Whether all packages are there already."""
    if loaded.device != "cpu" or (batch > 1 and not can_pack(loaded.attention)):
        return False
    return all(package_path(loaded, kind).is_file() for kind in kinds_for(batch))


def forward_for(loaded: LoadedModel, batch: int, on_progress: OnProgress) -> CompiledForward | None:
    """Load the packages, making them first if need be. None (and a log line) if that fails.

    `on_progress` may raise to cancel.
    """
    packages = {kind: package_path(loaded, kind) for kind in kinds_for(batch)}
    shared = _in_use.setdefault(loaded.model, {})
    key = tuple(packages.values())
    if key in shared:
        return shared[key]
    missing = [kind for kind, path in packages.items() if not path.is_file()]
    if missing:
        if reason := why_not(loaded, batch):
            logger.warning("%s", reason)
            return None
        if not _compile_apart(loaded, missing, on_progress):
            return None
    try:
        shared[key] = CompiledForward(loaded, packages)
        return shared[key]
    except (RuntimeError, OSError) as error:
        logger.warning("a compiled forward of %s does not load: %s", loaded.name, error)
        for path in packages.values():
            path.unlink(missing_ok=True)
        return None


class CompiledForward:
    """Packages of one model behind the call of `Forward`."""

    mode = "compiled"

    def __init__(self, loaded: LoadedModel, packages: dict[str, Path]) -> None:
        self._run: dict[str, Any] = {}
        for kind, path in packages.items():
            # the loader underneath: its Python wrapper rebuilds argument trees at every call
            self._run[kind] = torch._inductor.aoti_load_package(str(path)).loader.run
        self.min_slots = 1
        self.packs = PACKED in packages
        self._envelopes: dict[int, int] = self._measure(loaded)

    def envelope(self, num_nodes: int, num_slots: int) -> int:
        return max(2, num_nodes) if num_slots > 1 else self._envelopes.get(num_nodes, num_nodes)

    def __call__(
        self,
        ids_BN: torch.Tensor,
        positions_BN: torch.Tensor,
        rows_BN: torch.Tensor,
        masks: list[torch.Tensor],
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        packing: Packing | None = None,
    ) -> Logits:
        inputs = [ids_BN, positions_BN, rows_BN, *masks, *keys, *values]
        if packing is not None:
            return Logits(*self._run[PACKED]([*inputs, *packing]))
        return Logits(*self._run[SINGLE if ids_BN.shape[1] == 1 else TREE](inputs))

    def _measure(self, loaded: LoadedModel) -> dict[int, int]:
        """Sizes that run faster padded: blocked matrix kernels like some row counts better."""
        cost = {}
        for num_nodes in range(2, 17):
            inputs = _example(loaded, nodes=num_nodes, columns=128)
            times = []
            for _ in range(6):
                start = time.perf_counter()
                self(*inputs)
                times.append(time.perf_counter() - start)
            cost[num_nodes] = min(times)
        envelopes = {}
        for num_nodes, own in cost.items():
            wider = {n: c for n, c in cost.items() if n >= num_nodes and c < own * PADDING_GAIN}
            if wider:
                envelopes[num_nodes] = min(wider, key=lambda n: wider[n])
        return envelopes


def compile_packages(loaded: LoadedModel, kinds: list[str]) -> None:
    """Export and compile, in this process. The package appears under its name when it is whole."""
    step = HFStep(loaded.model, windowed_dict=loaded.windowed_dict).eval()
    # named before compiling: the compiler changes torch's number of threads, which the name hashes
    for kind, path in [(kind, package_path(loaded, kind)) for kind in kinds]:
        path.parent.mkdir(parents=True, exist_ok=True)
        nodes = 1 if kind == SINGLE else 8
        inputs = _example(loaded, nodes=nodes, columns=256, slots=4 if kind == PACKED else 0)
        with torch.no_grad():
            program = torch.export.export(
                step, inputs, dynamic_shapes=_dynamic(loaded, kind), strict=False
            )
            draft_path = path.with_suffix(f".{os.getpid()}.pt2")
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(draft_path), inductor_configs=_INDUCTOR
            )
        draft_path.replace(path)


def _example(loaded: LoadedModel, *, nodes: int, columns: int, slots: int = 0) -> tuple[Any, ...]:
    """Inputs of a pass over an empty cache: of one slot, or so many nodes of several, packed."""
    from engine.runner import kv_shapes

    dtype, rows = DTYPES[loaded.dtype], 512
    several, width = max(slots, 1), max(nodes // 2, 2) if slots else nodes
    masks = [torch.zeros(several, 1, width, columns, dtype=dtype)] * (2 if loaded.window else 1)
    shapes = kv_shapes(loaded)
    at = torch.arange(nodes)
    packing = (torch.zeros(several, width, dtype=torch.long), at.clone()) if slots else None
    return (
        torch.zeros(1, nodes, dtype=torch.long),
        at[None].clone(),
        at[None].clone(),
        masks,
        [torch.zeros(several, rows, heads, dim, dtype=dtype) for heads, dim, _ in shapes],
        [torch.zeros(several, rows, heads, dim, dtype=dtype) for heads, _, dim in shapes],
        packing,
    )


def _dynamic(loaded: LoadedModel, kind: str) -> tuple[Any, ...]:
    """Which sizes stay open: nodes and slots by kind, columns and cache rows always."""
    from torch.export import Dim

    from engine.runner import kv_shapes

    context = loaded.context_length
    mask: dict[int, Any] = {3: Dim("columns", min=2, max=2 * context + 1024)}
    cache: dict[int, Any] = {1: Dim("rows", min=2, max=2 * context + 4096)}
    ids: dict[int, Any] = {}
    packing = None
    if kind != SINGLE:
        most = MAX_NODES if kind == TREE else MAX_PACKED
        ids[1] = mask[2] = Dim("nodes", min=2, max=most)
    if kind == PACKED:
        mask[2], slots = Dim("width", min=2, max=MAX_NODES), Dim("slots", min=2, max=MAX_SLOTS)
        mask[0] = slots
        cache[0] = Dim("cache_slots", min=2, max=MAX_SLOTS)
        packing = ({0: slots, 1: mask[2]}, {0: ids[1]})
    layers = len(kv_shapes(loaded))
    num_masks = 2 if loaded.window else 1
    return (ids or None,) * 3 + ([mask] * num_masks, [cache] * layers, [cache] * layers, packing)


def _compile_apart(loaded: LoadedModel, kinds: list[str], on_progress: OnProgress) -> bool:
    """Compile in a subprocess, reporting progress by the usual duration."""
    log_path = cache_folder() / "compiled" / f"{loaded.name.replace('/', '--')}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "engine.compiled", "--model", loaded.path, "--dtype", loaded.dtype,
        "--threads", str(torch.get_num_threads()), *kinds,
    ]  # fmt: skip
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    expected = EXPECTED_SECONDS * len(kinds)
    message = f"compiling the forwards of {loaded.name}, once for this machine (~{expected:.0f} s)"
    start = time.monotonic()
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        try:
            while process.poll() is None:
                on_progress("compiling", message, min((time.monotonic() - start) / expected, 0.99))
                time.sleep(0.25)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        logger.warning("compiling %s failed (see %s); running eager", loaded.name, log_path)
    return process.returncode == 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if "model name" in line), "unknown"
    )


def main() -> None:
    """What the subprocess runs."""
    parser = argparse.ArgumentParser(description="Compile the forwards of a model into the cache.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("kinds", nargs="+", choices=[SINGLE, TREE, PACKED])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        loaded = load_model(arguments.model, dtype=arguments.dtype, device="cpu")
    except UserError as error:
        raise SystemExit(str(error)) from error
    compile_packages(loaded, arguments.kinds)


if __name__ == "__main__":
    main()
