"""Making packages of compiled forwards, in a subprocess or in this one.

The Hugging Face model itself is exported over (slots, nodes, columns) and compiled by AOTInductor
with its C++ matrix kernels and weights packed for them. A subprocess does it, so that a compiler
that fails or is cancelled takes nothing down: `python -m engine.compiling`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from engine.forward import HFStep
from engine.inside import Inside
from engine.models import DTYPES, LoadedModel, load_model
from engine.packages import INDUCTOR, PACKED, SINGLE, TREE, package_path
from engine.parts import Part, Sublayer
from engine.paths import cache_folder
from engine.room import kv_shapes

logger = logging.getLogger(__name__)

EXPECTED_SECONDS = 65.0
MAX_NODES, MAX_PACKED, MAX_SLOTS = 512, 4096, 64
_WHOLE = Part()

OnProgress = Callable[[str, str, float | None], None]


def compile_apart(
    loaded: LoadedModel, kinds: list[str], part: Part, on_progress: OnProgress
) -> bool:
    """Compile in a subprocess, reporting progress by the usual duration."""
    log_path = cache_folder() / "compiled" / f"{loaded.name.replace('/', '--')}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "engine.compiling", "--model", loaded.path, "--dtype", loaded.dtype,
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


def compile_packages(loaded: LoadedModel, kinds: list[str], part: Part = _WHOLE) -> None:
    """Export and compile, in this process. The package appears under its name when it is whole."""
    step = _Exported(HFStep(loaded.model, windowed_dict=loaded.windowed_dict, part=part)).eval()
    # named before compiling: the compiler changes torch's number of threads, which the name hashes
    for kind, path in [(kind, package_path(loaded, kind, part)) for kind in kinds]:
        path.parent.mkdir(parents=True, exist_ok=True)
        nodes = 1 if kind == SINGLE else 8
        slots = 4 if kind == PACKED else 0
        (*inputs, packing), states = example(loaded, part, nodes=nodes, columns=256, slots=slots)
        with torch.no_grad():
            program = torch.export.export(
                step,
                (*inputs, states, packing),
                dynamic_shapes=_dynamic(loaded, kind, part),
                strict=False,
            )
            draft_path = path.with_suffix(f".{os.getpid()}.pt2")
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(draft_path), inductor_configs=INDUCTOR
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


def example(
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
