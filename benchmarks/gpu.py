"""What a GPU makes of the step: kernels, graphs, pass times, speedup against nodes. One command.

Measured, for an 8B-shaped Llama with random weights in bfloat16 and a 1B-shaped draft: the kernels
against the bytes they must move (benchmarks/kernel_times.py), target and draft passes against
nodes, context and batch with and without CUDA graphs, draft passes with the candidates chosen on
the host against those chosen on the device (gpu_candidates.py), and whole decodings against plain
decoding with a drafter of set acceptance, whose drafting costs nothing: the target's side of the
speedup.

    PYTHONPATH=. python benchmarks/gpu.py --name h100      # a GPU, about eight minutes
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --small      # the same code in seconds
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --embedded   # the embedded pair on a CPU

Writes data/hardware/NAME.json (a dry run: a file in a temporary folder), prints tables in Markdown.
Sections that fail say why and the others go on. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_candidates import candidate_rows
from gpu_measure import (
    Arm,
    PlainDrafter,
    bandwidth,
    decode,
    engine_of,
    executions_of,
    forward_in,
    pass_times,
    row_of,
)
from gpu_models import SIZES, SetAcceptance, counting, shape_of
from gpu_tables import print_tables

from engine.errors import UserError
from engine.hardware import HardwareProfile, Passes, Shape, from_json
from engine.models import LoadedModel, first_line, load_model, resolve_device
from engine.requests import Request
from engine.rules import Kernels
from engine.runner import TreeRunner
from workbench.environment import cpu_name, gpu
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET

HERE = Path(__file__).resolve().parent
PROFILES = HERE.parent / "data" / "hardware"
#: how often the true token is a drafter's first, second, ... choice
GOOD, FAIR = (0.75, 0.1, 0.04, 0.02, 0.01), (0.5, 0.15, 0.07, 0.04, 0.03)
DEPTH = 12
#: nodes of a request that a draft pass expands
FRONTIERS = (1, 4, 16)


class Extent(NamedTuple):
    """How much is measured."""

    target: str
    draft: str
    dtype: str
    nodes: tuple[int, ...]
    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    tokens: int
    repeats: int
    copied: int  # bytes of the bandwidth test


FULL = Extent(
    "8b", "1b", "bfloat16", (1, 2, 4, 8, 16, 32, 64), (128, 1024, 3072), (1, 4, 8), 12, 64, 2,
    1 << 30,
)  # fmt: skip
SMALL = Extent(
    "small", "smaller", "float32", (1, 4, 16), (16, 64), (1, 3), 2, 24, 1, 1 << 22
)  # fmt: skip
#: the embedded pair, for a profile of a CPU
EMBEDDED = Extent(
    EMBEDDED_TARGET, EMBEDDED_DRAFT, "float32", (1, 2, 4, 8, 16, 32), (32, 256), (1, 4, 8), 8, 48,
    2, 1 << 28,
)  # fmt: skip
#: what a profile says of how it was made
HOW = {
    FULL: "benchmarks/gpu.py, random weights",
    EMBEDDED: "benchmarks/gpu.py --embedded",
    SMALL: "benchmarks/gpu.py --small, a dry run that measures nothing",
}


def main() -> int:
    """Measure, write, print, and return the exit code."""
    arguments = parse_arguments()
    try:
        device = resolve_device(arguments.device)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    extent = SMALL if arguments.small else EMBEDDED if arguments.embedded else FULL
    if device == "cpu" and extent is FULL:
        print(
            "Error: the full sizes need a GPU; on a CPU add --small or --embedded.",
            file=sys.stderr,
        )
        return 2
    sections = Sections(device)
    copied = sections.run("bandwidth", bandwidth, device, extent.copied)
    kernels = sections.run("kernels", kernel_times) if extent is FULL else None
    shapes: dict[str, Shape] = {}
    passes: list[Passes] = []
    candidates: list[dict[str, Any]] = []
    speedups: list[dict[str, Any]] = []
    for role in ("draft", "target"):
        measure_model(
            role, extent, sections,
            shapes=shapes, passes=passes, candidates=candidates, speedups=speedups,
        )  # fmt: skip
    facts = gpu(device) or {"name": cpu_name(), "driver": ""}
    profile = HardwareProfile(
        name=arguments.name or default_name(arguments, facts["name"]),
        device=facts["name"], driver=str(facts["driver"]), torch=torch.__version__,
        dtype=extent.dtype, models=shapes, passes=tuple(passes), measured=not arguments.small,
        how=HOW[extent],
        bandwidth=copied,
        findings={
            "kernels": kernels, "candidates": candidates, "speedups": speedups,
            "failed": sections.failed,
        },
    )  # fmt: skip
    path = write(profile, arguments)
    print_tables(profile)
    print(json.dumps({
        "benchmark": "gpu", "profile": str(path), "seconds": round(sections.seconds, 1),
        "failed": sections.failed, "candidates": candidates, "speedups": speedups,
    }))  # fmt: skip
    return 1 if sections.failed else 0


class Sections:
    """Runs the parts of the measurement: one that fails says why, and the next goes on."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.failed: dict[str, str] = {}
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def run(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """What the work gives, None where it failed."""
        say(f"{name} ({self.seconds:.0f} s)")
        try:
            return work(*arguments)
        except Exception as error:  # noqa: BLE001 - time on a GPU is scarce: the rest goes on
            self.failed[name] = first_line(error)
            say(f"{name} failed: {self.failed[name]}")
            return None
        finally:
            if self.device.startswith("cuda"):
                gc.collect()  # graphs hold caches in cycles
                torch.cuda.empty_cache()


def measure_model(
    role: str,
    extent: Extent,
    sections: Sections,
    *,
    shapes: dict[str, Shape],
    passes: list[Passes],
    candidates: list[dict[str, Any]],
    speedups: list[dict[str, Any]],
) -> None:
    """All that is measured of the target or the draft; the model is gone afterwards."""
    loaded = sections.run(f"{role} model", model_of, role, extent, sections.device)
    if loaded is None:
        return
    shapes[role] = shape_of(loaded)
    for batch in extent.batches:
        for execution in executions_of(loaded, batch):
            name = f"{role} passes, {execution}, {batch} requests"
            found = sections.run(name, passes_of, role, loaded, execution, batch, extent)
            passes += [found] if found else []
            if role == "draft":
                name = f"draft candidates, {execution}, {batch} requests"
                candidates += (
                    sections.run(name, candidates_of, loaded, execution, batch, extent) or []
                )
    for batch in extent.batches if role == "target" else ():
        name = f"decoding, {batch} requests"
        rows = sections.run(name, speedup_rows, loaded, batch, extent, "auto")
        if rows is None:
            name += ", verified without kernels"
            rows = sections.run(name, speedup_rows, loaded, batch, extent, "off")
        speedups += rows or []


def model_of(role: str, extent: Extent, device: str) -> LoadedModel:
    """A random model of the role's size, or the embedded one."""
    size = extent.target if role == "target" else extent.draft
    if size not in SIZES:
        return load_model(size, dtype=extent.dtype, device=device)
    return counting(size, dtype=extent.dtype, device=device, context=8192)


def kernel_times() -> Any:
    """What benchmarks/kernel_times.py finds, by its last line."""
    script = HERE / "kernel_times.py"
    if not script.is_file():
        raise RuntimeError(f"{script.name} is not there")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False
    )
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{script.name} ended with {done.returncode}: {done.stderr[-300:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def passes_of(role: str, loaded: LoadedModel, execution: str, batch: int, extent: Extent) -> Passes:
    """Pass times of one model, one way, so many requests."""
    most = max(extent.nodes)
    runner = TreeRunner(
        loaded, num_slots=batch, capacity=max(extent.contexts) + 1, max_tree=most,
        forward=forward_in(execution, loaded, batch),
    )  # fmt: skip
    cost = pass_times(runner, nodes=extent.nodes, contexts=extent.contexts, rounds=extent.rounds)
    if hasattr(runner.run, "said"):
        say(f"  {runner.run.said()}")
    return Passes(role, execution, batch, cost)


def candidates_of(
    loaded: LoadedModel, execution: str, batch: int, extent: Extent
) -> list[dict[str, Any]]:
    """Draft passes with candidates chosen on the host and on the device, one way of execution."""
    nodes = [size for size in extent.nodes if size in FRONTIERS]
    runner = TreeRunner(
        loaded, num_slots=batch, capacity=extent.contexts[0] + 1, max_tree=max(nodes),
        forward=forward_in(execution, loaded, batch),
    )  # fmt: skip
    return candidate_rows(
        runner, nodes=nodes, context=extent.contexts[0], rounds=min(extent.rounds, 5)
    )


def speedup_rows(
    loaded: LoadedModel, batch: int, extent: Extent, kernels: Kernels
) -> list[dict[str, Any]]:
    """Plain and speculative decoding with set acceptance, in turns."""
    requests, script = scripted(loaded, batch, extent)
    arms = []
    for execution in executions_of(loaded, batch):
        runner = runner_of(loaded, execution, batch, extent)
        for acceptance in (GOOD, FAIR):
            for nodes in [n - 1 for n in extent.nodes]:
                if nodes == 0 and acceptance is not GOOD:
                    continue  # plain decoding once
                drafter = SetAcceptance(
                    acceptance, nodes=nodes, depth=DEPTH, script=script,
                    vocab_size=loaded.vocab_size,
                )  # fmt: skip
                engine = engine_of(runner, drafter, nodes=nodes, kernels=kernels)
                arms.append(Arm(execution, nodes, acceptance if nodes else (), engine, []))
    for repeat in range(extent.repeats + 1):
        for arm in arms:
            decode(arm, requests, script)
            if repeat == 0:  # warms up
                arm.seconds.clear()
    plain = {arm.execution: arm for arm in arms if arm.nodes == 0}
    return [row_of(arm, plain[arm.execution], batch=batch) for arm in arms]


def scripted(
    loaded: LoadedModel, batch: int, extent: Extent
) -> tuple[list[Request], dict[int, list[int]]]:
    """Requests, and the whole sequences that greedy decoding makes of them."""
    prompt, longer = extent.contexts[0], extent.tokens + DEPTH
    script = {}
    for index in range(batch):
        first = 1000 * index % loaded.vocab_size
        script[index] = [(first + n) % loaded.vocab_size for n in range(prompt + longer)]
    if loaded.path:  # no counting model: what it says is found out by plain decoding
        engine = engine_of(runner_of(loaded, "eager", batch, extent), PlainDrafter(), nodes=0)
        for index, whole in script.items():
            engine.add(Request(index, "", tuple(whole[:prompt]), longer))
        while engine.busy:
            for record in engine.step().finished:
                script[record.request] = [*record.prompt_ids, *record.token_ids]
    requests = [
        Request(index, "", tuple(whole[:prompt]), extent.tokens) for index, whole in script.items()
    ]
    return requests, script


def runner_of(loaded: LoadedModel, execution: str, batch: int, extent: Extent) -> TreeRunner:
    """A runner with room for the requests of `scripted` and the largest tree."""
    return TreeRunner(
        loaded, num_slots=batch, capacity=extent.contexts[0] + extent.tokens + DEPTH + 1,
        max_tree=max(extent.nodes), forward=forward_in(execution, loaded, batch),
    )  # fmt: skip


def write(profile: HardwareProfile, arguments: argparse.Namespace) -> Path:
    """The profile as a file that reads back."""
    folder = arguments.out or (Path(tempfile.mkdtemp()) if arguments.small else PROFILES)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile.name}.json"
    path.write_text(json.dumps(profile.as_json(), indent=1) + "\n")
    if profile.passes:
        from_json(json.loads(path.read_text()), source=str(path))
    return path


def default_name(arguments: argparse.Namespace, device: str) -> str:
    """Of the profile."""
    if arguments.small:
        return "dry-run"
    return "cpu-embedded" if arguments.embedded else short(device)


def short(name: str) -> str:
    """A device's name as a file's: NVIDIA H100 80GB HBM3 -> h100-80gb-hbm3."""
    return "-".join(re.findall(r"[a-z0-9.]+", name.lower().removeprefix("nvidia")))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="auto", help="cuda, cuda:N, cpu or auto")
    parser.add_argument("--small", action="store_true", help="a tiny model, to see that it works")
    parser.add_argument("--embedded", action="store_true", help="the embedded pair in float32")
    parser.add_argument("--name", help="of the profile (default: the device's)")
    parser.add_argument("--out", type=Path, help="folder of the profile (default data/hardware)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
