"""Ahead-of-time compiled forwards: made once per model, kept on disk, loaded in a moment.

The Hugging Face model itself is exported over (slots, nodes, columns) and compiled by AOTInductor
with its C++ matrix kernels and weights packed for them. A subprocess does it, so that a compiler
that fails or is cancelled takes nothing down. Where it cannot be done, eager serves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
from engine.parts import Inside, Part, Sublayer
from engine.paths import cache_folder
from engine.room import kv_shapes

logger = logging.getLogger(__name__)

#: kinds of compiled forwards. torch.export fixes sizes of 1, so one node alone is its own; nodes of
#: several slots come packed
SINGLE, TREE, PACKED = "single", "tree", "packed"
_WHOLE = Part()
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


def package_path(loaded: LoadedModel, kind: str, part: Part = _WHOLE) -> Path:
    """Where the package lies; the name hashes all that its code depends on."""
    parts: tuple[Any, ...] = (
        loaded.content_hash, type(loaded.model).__name__, loaded.dtype, loaded.window, kind,
        torch.__version__, transformers.__version__, torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(), _processor(), sorted(_INDUCTOR.items()), 3,
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


def forward_for(
    loaded: LoadedModel, batch: int, on_progress: OnProgress, *, part: Part = _WHOLE
) -> CompiledForward | None:
    """Load the packages, making them first if need be. None (and a log line) if that fails.

    `on_progress` may raise to cancel.
    """
    packages = {kind: package_path(loaded, kind, part) for kind in kinds_for(batch)}
    shared = _in_use.setdefault(loaded.model, {})
    key = tuple(packages.values())
    if key in shared:
        return shared[key]
    missing = [kind for kind, path in packages.items() if not path.is_file()]
    if missing:
        if reason := why_not(loaded, batch):
            logger.warning("%s", reason)
            return None
        if not _compile_apart(loaded, missing, part, on_progress):
            return None
    try:
        shared[key] = CompiledForward(loaded, packages, part)
        return shared[key]
    except (RuntimeError, OSError) as error:
        logger.warning("a compiled forward of %s does not load: %s", loaded.name, error)
        for path in packages.values():
            path.unlink(missing_ok=True)
        return None


class CompiledForward:
    """Packages of one model behind the call of `Forward`."""

    mode = "compiled"

    def __init__(self, loaded: LoadedModel, packages: dict[str, Path], part: Part = _WHOLE) -> None:
        self._part = part
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
        *,
        states: list[torch.Tensor] | None = None,
    ) -> Logits:
        inputs = [ids_BN, positions_BN, rows_BN, *masks, *keys, *values, *(states or ())]
        if packing is not None:
            return Logits(*self._run[PACKED]([*inputs, *packing]))
        return Logits(*self._run[SINGLE if ids_BN.shape[1] == 1 else TREE](inputs))

    def _measure(self, loaded: LoadedModel) -> dict[int, int]:
        """Sizes that run faster padded: blocked matrix kernels like some row counts better."""
        cost = {}
        for num_nodes in range(2, 17):
            inputs, told = _example(loaded, self._part, nodes=num_nodes, columns=128)
            times = []
            for _ in range(6):
                start = time.perf_counter()
                self(*inputs, states=told)
                times.append(time.perf_counter() - start)
            cost[num_nodes] = min(times)
        envelopes = {}
        for num_nodes, own in cost.items():
            wider = {n: c for n, c in cost.items() if n >= num_nodes and c < own * PADDING_GAIN}
            if wider:
                envelopes[num_nodes] = min(wider, key=lambda n: wider[n])
        return envelopes


def compile_packages(loaded: LoadedModel, kinds: list[str], part: Part = _WHOLE) -> None:
    """Export and compile, in this process. The package appears under its name when it is whole."""
    step = _Exported(HFStep(loaded.model, windowed_dict=loaded.windowed_dict, part=part)).eval()
    # named before compiling: the compiler changes torch's number of threads, which the name hashes
    for kind, path in [(kind, package_path(loaded, kind, part)) for kind in kinds]:
        path.parent.mkdir(parents=True, exist_ok=True)
        nodes = 1 if kind == SINGLE else 8
        slots = 4 if kind == PACKED else 0
        (*inputs, packing), states = _example(loaded, part, nodes=nodes, columns=256, slots=slots)
        with torch.no_grad():
            program = torch.export.export(
                step,
                (*inputs, states, packing),
                dynamic_shapes=_dynamic(loaded, kind, part),
                strict=False,
            )
            draft_path = path.with_suffix(f".{os.getpid()}.pt2")
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(draft_path), inductor_configs=_INDUCTOR
            )
        draft_path.replace(path)


class _Exported(torch.nn.Module):
    """A step with its tensors in the order in which the packages are called."""

    def __init__(self, step: HFStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        *tensors, states, packing = inputs
        return self.step(*tensors, packing, states=states)


def _example(
    loaded: LoadedModel, part: Part, *, nodes: int, columns: int, slots: int = 0
) -> tuple[tuple[Any, ...], list[torch.Tensor]]:
    """Inputs and states of a pass over an empty cache.

    Of one slot, or of so many nodes of several, packed.
    """

    dtype, rows = DTYPES[loaded.dtype], 512
    several, width = max(slots, 1), max(nodes // 2, 2) if slots else nodes
    masks = [torch.zeros(several, 1, width, columns, dtype=dtype)] * (2 if loaded.window else 1)
    shapes = _kv_shapes(loaded, part)
    at = torch.arange(nodes)
    size = Inside.of(loaded.model).hidden_size if part.points else 0
    states = [torch.zeros(several, rows, size, dtype=dtype) for _ in part.points]
    packing = (torch.zeros(several, width, dtype=torch.long), at.clone()) if slots else None
    return (
        torch.zeros(1, nodes, dtype=torch.long),
        at[None].clone(),
        at[None].clone(),
        masks,
        [torch.zeros(several, rows, heads, dim, dtype=dtype) for heads, dim, _ in shapes],
        [torch.zeros(several, rows, heads, dim, dtype=dtype) for heads, _, dim in shapes],
        packing,
    ), states


def _kv_shapes(loaded: LoadedModel, part: Part) -> list[tuple[int, int, int]]:
    return [*kv_shapes(loaded), *(part.graft.kv_shapes if part.graft is not None else ())]


def _dynamic(loaded: LoadedModel, kind: str, part: Part) -> tuple[Any, ...]:
    """Which sizes stay open: nodes and slots by kind, columns and cache rows always."""
    from torch.export import Dim

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
    layers = len(_kv_shapes(loaded, part))
    num_masks = 2 if loaded.window else 1
    kept = [[mask] * num_masks, [cache] * layers, [cache] * layers, [cache] * len(part.points)]
    # `_Exported` takes them as they come, and torch.export knows that as one argument
    return (((ids or None,) * 3 + (*kept, packing)),)


def _compile_apart(
    loaded: LoadedModel, kinds: list[str], part: Part, on_progress: OnProgress
) -> bool:
    """Compile in a subprocess, reporting progress by the usual duration."""
    log_path = cache_folder() / "compiled" / f"{loaded.name.replace('/', '--')}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "engine.compiled", "--model", loaded.path, "--dtype", loaded.dtype,
        "--threads", str(torch.get_num_threads()), "--part", part_to_json(part),
        "--target", loaded.target_path, *kinds,
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


def part_to_json(part: Part) -> str:
    """A part in words that `part_from_json` understands; a graft by its folder."""
    told = {"first": part.first, "last": part.last, "taps": part.taps}
    graft = part.graft.path if part.graft is not None else None
    return json.dumps(told | {"skipped": sorted(part.skipped), "graft": graft})


def part_from_json(text: str, loaded: LoadedModel) -> Part:
    """Raises UserError where the graft does not load."""
    told = json.loads(text)
    graft: Any = None
    if told["graft"]:
        from engine.heads.files import load_head

        graft = load_head(told["graft"], loaded)
    skipped = frozenset(Sublayer(*one) for one in told["skipped"])
    return Part(told["first"], told["last"], skipped, tuple(told["taps"]), graft)


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
    parser.add_argument("--part", default=part_to_json(_WHOLE))
    parser.add_argument("--target", default="", help="of a head that is compiled as a model")
    parser.add_argument("kinds", nargs="+", choices=[SINGLE, TREE, PACKED])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        path = arguments.target or arguments.model
        loaded = load_model(path, dtype=arguments.dtype, device="cpu")
        if arguments.target:
            from engine.heads.eagle_model import as_draft
            from engine.heads.files import load_head

            head: Any = load_head(arguments.model, loaded)
            loaded = as_draft(head, loaded)
    except UserError as error:
        raise SystemExit(str(error)) from error
    compile_packages(loaded, arguments.kinds, part_from_json(arguments.part, loaded))


if __name__ == "__main__":
    main()
