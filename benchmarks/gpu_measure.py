"""Timing of passes and of whole decodings on one device (benchmarks/gpu.py)."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from engine.compiled import forward_for
from engine.costs import PassCost
from engine.decode import Engine
from engine.drafters.base import Drafter, Sequence
from engine.drafters.lookup import Branches, LookupDrafter
from engine.forward import Forward
from engine.graphs import Rerun, graph_forward
from engine.models import LoadedModel
from engine.packages import at_hand
from engine.replaying import tried
from engine.requests import Request
from engine.rules import Kernels, Verifier
from engine.runner import Nodes, TreeRunner
from engine.sampling import Sampling
from engine.target import Target

STAGES = ("draft", "score", "verify", "commit", "record", "unaccounted")


def synchronize(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def forward_in(execution: str, loaded: LoadedModel, batch: int) -> Forward | None:
    """A forward for this way of execution; a stand-in replaces graphs on a CPU, for dry runs."""
    if execution == "eager":
        return None
    if execution == "compiled":
        return forward_for(loaded, batch, lambda phase, message, fraction: None)
    if loaded.device == "cpu":
        return tried(loaded, Rerun(), num_slots=batch)
    return graph_forward(loaded, num_slots=batch)


def executions_of(loaded: LoadedModel, batch: int) -> tuple[str, ...]:
    """Ways of execution that are compared: a model on disk and a CPU have no use for graphs."""
    if loaded.device == "cpu" and loaded.path:
        return ("eager", "compiled") if at_hand(loaded, batch) else ("eager",)
    return ("eager", "graph")


class PlainDrafter(LookupDrafter):
    """Drafts nothing."""

    def branches(self, sequence: Sequence) -> Branches:
        return Branches(sequence.tokens[-1])


def bandwidth(device: str, num_bytes: int) -> float:
    """Bytes per second that a copy within the device's memory moves, read and written."""
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    into = torch.empty_like(source)
    best = float("inf")
    for _ in range(8):
        synchronize(device)
        start = perf_counter()
        into.copy_(source)
        synchronize(device)
        best = min(best, perf_counter() - start)
    return 2 * num_bytes / best


def pass_times(
    runner: TreeRunner, *, nodes: Many[int], contexts: Many[int], rounds: int
) -> PassCost:
    """Milliseconds of passes over so many nodes of every slot, until the device is done.

    Sizes take turns; the first round warms up (and records graphs) and is not counted.
    """
    device, slots = runner.loaded.device, range(runner.num_slots)
    ms = np.full((rounds + 1, len(contexts), len(nodes)), np.nan)
    for at, context in enumerate(contexts):
        for slot in slots:
            runner.admit(slot, [1] * context)
        for number in range(rounds + 1):
            for column, size in enumerate(nodes):
                new = Nodes([2] * size, [-1, *[0] * (size - 1)])
                synchronize(device)
                start = perf_counter()
                runner.forward(dict.fromkeys(slots, new))
                synchronize(device)
                ms[number, at, column] = (perf_counter() - start) * 1e3
                for slot in slots:
                    runner.keep(slot, [])
        for slot in slots:
            runner.release(slot)
    rows = np.quantile(ms[1:], 0.25, axis=0)
    return PassCost(tuple(nodes), tuple(contexts), tuple(map(tuple, rows.tolist())))


@dataclass(slots=True)
class Arm:
    """One way of decoding, and what came of it."""

    execution: str
    nodes: int  # drafted per step at most; 0: plain decoding
    acceptance: tuple[float, ...]
    engine: Engine
    seconds: list[float]  # of each repeat
    wrong: int = 0  # requests whose tokens were not the script's
    tokens: int = 0
    steps: int = 0  # request-steps
    stages_ns: dict[str, int] | None = None


def engine_of(
    runner: TreeRunner, drafter: Drafter, *, nodes: int, kernels: Kernels = "auto"
) -> Engine:
    """A greedy engine over a runner that others use too, one after another."""
    return Engine(
        target=Target(runner),
        drafter=drafter,
        verifier=Verifier("match", Sampling(), kernels=kernels),
        sampling=Sampling(),
        num_slots=runner.num_slots,
        budget=nodes,
        ignore_eos=True,
        mode=runner.run.mode,
    )


def decode(arm: Arm, requests: list[Request], script: dict[int, list[int]]) -> None:
    """All requests at once; the time between the end of prefill and the last token counts."""
    engine, records, steps = arm.engine, [], []
    engine.add(*requests)
    start = perf_counter()
    while engine.busy:
        output = engine.step()
        steps += output.steps
        records += output.finished
    arm.seconds.append(perf_counter() - start)
    prompts = {request.index: len(request.prompt_ids) for request in requests}
    arm.wrong += sum(
        record.token_ids != script[record.request][prompts[record.request] :][: record.num_kept]
        for record in records
    )
    arm.tokens = sum(record.num_kept for record in records)
    arm.steps = len(steps)
    per_pass = {step.batch_step: step.times for step in steps}.values()
    arm.stages_ns = {
        stage: int(np.mean([getattr(times, stage) for times in per_pass])) for stage in STAGES
    }


def row_of(arm: Arm, plain: Arm, *, batch: int) -> dict[str, Any]:
    """The figures of an arm; `plain` is plain decoding in the same way of execution."""
    seconds = float(np.median(arm.seconds))
    return {
        "batch": batch, "execution": arm.execution, "nodes": arm.nodes,
        "acceptance": list(arm.acceptance), "tokens_per_step": arm.tokens / arm.steps,
        "step_ms": seconds * 1e3 / (arm.steps / batch), "tokens_per_second": arm.tokens / seconds,
        "speedup": float(np.median(plain.seconds)) / seconds, "wrong_requests": arm.wrong,
        "spread": float(np.ptp(arm.seconds)) / seconds,
        "stages_ms": {name: ns / 1e6 for name, ns in (arm.stages_ns or {}).items()},
    }  # fmt: skip
