"""Does the simulator say what a real load does? Throughput and 90th percentiles, both measured.

A profile is measured first: passes of both models over the nodes of a whole batch
(engine/costs.py), and waves of requests under the method, whose steps give acceptance and what a
batch takes around its passes. A Poisson load of other requests is served for real between two such
calibrations, since a machine may be slower now and faster then; and the same arrivals by the same
scheduler on the virtual clock, with several seeds of what is accepted.

    python benchmarks/simulator_check.py                    # about two minutes
    python benchmarks/simulator_check.py --quick            # twenty seconds, to see that it works
    python benchmarks/simulator_check.py --run ID           # the arrivals of a stored load run

Ratios are simulated by measured. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.costs import PairCost, contexts_up_to, measure, sizes_up_to
from engine.decode import Engine
from engine.engine import EngineConfig, build_engine
from engine.errors import UserError
from engine.execution import forwards_for
from engine.models import LoadedModel, load_model
from engine.parts import Part
from engine.paths import data_folder
from engine.registry import parse_options
from engine.requests import Request
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.serving.errors import QueueFullError
from engine.serving.scheduler import Changes, Scheduler
from engine.serving.simulate.acceptance import MeasuredSteps
from engine.serving.simulate.costs import Costs, MeasuredCosts, fit
from engine.serving.simulate.model import StepModel
from engine.serving.simulate.replay import Simulated, replay
from engine.serving.simulate.shapes import Auction, Dynamic, Plain, Shape
from engine.serving.trace import Order
from workbench.loading.metrics import LoadMetrics, of_rows

#: drafted nodes, deepest level and children of the dynamic trees
NODES, DEPTH, TOP_K = 6, 4, 3
#: method and options, and how a simulation sees it
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("autoregressive", {}),
    "dynamic": ("dynamic-tree", {"nodes": NODES, "depth": DEPTH, "top_k": TOP_K}),
    "auction": ("dynamic-tree", {"policy": "auto", "most": 16, "depth": DEPTH, "top_k": TOP_K}),
}
WIDE = ("dynamic-tree", {"policy": "best-first", "nodes": 32, "depth": 6, "top_k": TOP_K})
CAPACITY, SEEDS = 384, 5
#: what requests of a wave come after one another
APART_NS = 30_000_000
COMPARED = ("output_throughput", "ttft", "tpot", "e2el")


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    pair = [load_model(name, device="cpu") for name in ("pycode-target", "pycode-draft")]
    prompts = Prompts(pair[0], np.random.default_rng(0))
    stored = stored_orders(arguments.run, prompts) if arguments.run else None
    costs = measured_passes(pair, arguments)
    wide = MeasuredSteps.from_steps(
        waves(WIDE, pair, prompts, arguments, waves_of=1 if arguments.quick else 3).steps
    )
    found = [check(name, pair, prompts, costs, wide, stored, arguments) for name in arguments.only]
    print_table(found)
    worst = max(abs(one["ratio"][what] - 1) for one in found for what in one["ratio"])
    print(json.dumps({"benchmark": "simulator-check", "worst": worst, "rows": found}))
    return 0


class Prompts:
    """Held-out code, cut to drawn lengths."""

    def __init__(self, target: LoadedModel, rng: np.random.Generator) -> None:
        lines = (data_folder() / "prompts" / "code.jsonl").read_text().splitlines()
        self._ids = [target.tokenizer.encode(json.loads(line)["turns"][0]) for line in lines]
        self._rng = rng

    def request(
        self, index: int, *, prompt: int | None = None, tokens: int | None = None
    ) -> Request:
        ids = self._ids[int(self._rng.integers(len(self._ids)))]
        length = prompt or int(self._rng.integers(24, 160))
        ids = (ids * (length // len(ids) + 1))[:length]
        return Request(index, "", tuple(ids), tokens or int(self._rng.integers(16, 80)))


def engine_of(
    method: tuple[str, dict[str, Any]], pair: list[LoadedModel], arguments: argparse.Namespace
) -> Engine:
    name, options = method
    return build_engine(
        EngineConfig(
            method=name, options=parse_options(name, options), sampling=Sampling(),
            batch=arguments.slots, execution=arguments.execution, ignore_eos=True,
            capacity=CAPACITY,
        ),
        target=pair[0],
        draft=pair[1],
    )  # fmt: skip


def measured_passes(pair: list[LoadedModel], arguments: argparse.Namespace) -> PairCost:
    """Pass times of a whole batch."""
    slots = arguments.slots
    config = EngineConfig(
        "dynamic-tree", None, Sampling(), batch=slots, execution=arguments.execution
    )
    forwards, _ = forwards_for([(one, Part()) for one in pair], config)
    runners = [
        TreeRunner(one, num_slots=slots, capacity=CAPACITY, max_tree=40, forward=forward)
        for one, forward in zip(pair, forwards, strict=True)
    ]
    return measure(
        runners[0],
        runners[1],
        target_nodes=sizes_up_to(slots * (NODES + 2)),
        draft_nodes=sizes_up_to(slots * TOP_K),
        contexts=contexts_up_to(CAPACITY - 1),
        rounds=4 if arguments.quick else 8,
    )


def waves(
    method: tuple[str, dict[str, Any]],
    pair: list[LoadedModel],
    prompts: Prompts,
    arguments: argparse.Namespace,
    *,
    waves_of: int,
    first: int = 0,
) -> Changes:
    """Batches that fill and run down to the last request, so that every batch size occurs.

    Half of the prompts are read together and half while others decode. `first` is the number of
    the first wave, by which requests are numbered.
    """
    engine = engine_of(method, pair, arguments)
    told = Changes([], [], [], [])
    for wave in range(first, first + waves_of + 1):
        orders = [
            Order(prompts.request(100 * wave + at), max(at - arguments.slots // 2, 0) * APART_NS)
            for at in range(arguments.slots)
        ]
        new = serve(engine, orders)
        if wave > first:  # the first one warms up
            for into, more in zip(told, new, strict=True):
                into.extend(more)
    return told


def serve(engine: Engine, orders: Sequence[Order]) -> Changes:
    """Orders as they come, in real time."""
    scheduler = Scheduler({"": engine}, max_waiting=10_000)
    told, coming = Changes([], [], [], []), list(orders)
    while coming or scheduler.busy:
        while coming and coming[0].arrival_ns <= scheduler.now():
            with suppress(UserError, QueueFullError):
                scheduler.submit(coming.pop(0))
        if not scheduler.busy:
            time.sleep(max((coming[0].arrival_ns - scheduler.now()) * 1e-9, 0.0))
            continue
        for into, new in zip(told, scheduler.step(), strict=True):
            into.extend(new)
    return told


def check(
    name: str,
    pair: list[LoadedModel],
    prompts: Prompts,
    passes: PairCost,
    wide: MeasuredSteps,
    stored: list[Order] | None,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """One method: measured and simulated figures of the same arrivals, and their ratios."""
    few = 1 if arguments.quick else 3
    waved = waves(METHODS[name], pair, prompts, arguments, waves_of=few)
    orders = stored or poisson(prompts, capacity_of(waved), arguments)
    real = serve(engine_of(METHODS[name], pair, arguments), orders)
    after = waves(METHODS[name], pair, prompts, arguments, waves_of=few, first=few + 1)
    for into, more in zip(waved, after, strict=True):
        into.extend(more)
    context = float(np.mean([step.position for step in waved.steps]))
    around = fit(
        passes, waved.ticks, waved.arrivals, context=context, draft_rows=rows_of(name),
        slots=arguments.slots,
    )  # fmt: skip
    costs = MeasuredCosts(passes, around, slots=arguments.slots)
    # its own steps where it drafts in one way, wide ones where it chooses
    steps = MeasuredSteps.from_steps(waved.steps) if name == "dynamic" else wide
    model = StepModel(shape_of(name, steps, costs), costs, steps)
    measured = figures(of_rows(real.arrivals, real.ticks, slots=arguments.slots))
    runs = [
        replay(real.arrivals, model, num_slots=arguments.slots, capacity=CAPACITY, seed=seed)
        for seed in range(SEEDS)
    ]
    each = [figures(of_rows(*run, slots=arguments.slots)) for run in runs]
    simulated = {what: float(np.mean([one[what] for one in each])) for what in measured}
    tick = np.mean([t.row.end_ns - t.row.begin_ns for t in real.ticks]) * 1e-6
    return {
        "method": name,
        "measured": measured,
        "simulated": simulated,
        "ratio": {what: round(simulated[what] / measured[what], 3) for what in measured},
        "step_ms": [round(float(tick), 3), round(step_ms(runs), 3)],
        "tokens_per_step": [tokens_per_step(real), tokens_per_step(runs[0])],
        "around": around._asdict(),
    }


def rows_of(name: str) -> Callable[[int], list[int]]:
    """Rows of each draft pass of a batch."""
    return lambda batch: [batch] + [batch * TOP_K] * (DEPTH - 1)


def shape_of(name: str, steps: MeasuredSteps, costs: Costs) -> Shape:
    """How a simulation sees a method."""
    if name == "plain":
        return Plain()
    if name == "auction":
        return Auction(steps, costs, depth=DEPTH, width=TOP_K, most=16)
    return Dynamic(steps, nodes=NODES, depth=DEPTH, width=TOP_K)


def capacity_of(waved: Changes) -> float:
    """Requests per second that full batches would serve, from the fuller half of the steps."""
    most = max(tick.row.active for tick in waved.ticks)
    full = [tick for tick in waved.ticks if tick.row.active > most // 2]
    tokens = sum(share.kept for tick in full for share in tick.shares)
    seconds = sum(tick.row.end_ns - tick.row.begin_ns for tick in full) * 1e-9
    return tokens / seconds / 47.5  # an answer's mean length


def poisson(prompts: Prompts, capacity: float, arguments: argparse.Namespace) -> list[Order]:
    """Requests at a share of what full batches would serve."""
    rng = np.random.default_rng(arguments.seed)
    at = np.cumsum(rng.exponential(1e9 / (arguments.load * capacity), arguments.requests))
    return [Order(prompts.request(index), int(ns)) for index, ns in enumerate(at)]


def stored_orders(run_id: str, prompts: Prompts) -> list[Order]:
    """Arrivals and lengths of a stored load run, with prompts of ours."""
    from workbench.store import open_run
    from workbench.store.serving import arrival_rows

    with open_run(run_id) as run:
        rows = arrival_rows(run)
    return [
        Order(
            prompts.request(row.request, row.num_prompt, row.max_new_tokens),
            row.arrival_ns,
        )
        for row in sorted(rows, key=lambda row: row.arrival_ns)
    ]


def figures(found: LoadMetrics) -> dict[str, float]:
    """Throughput in tokens per second and the 90th percentiles in milliseconds."""
    latencies = {name: found.latencies[name].p90 for name in COMPARED[1:]}
    return {"output_throughput": found.output_throughput, **latencies}


def step_ms(runs: Sequence[Simulated]) -> float:
    spans = [tick.row.end_ns - tick.row.begin_ns for run in runs for tick in run.ticks]
    return float(np.mean(spans)) * 1e-6


def tokens_per_step(run: Changes | Simulated) -> float:
    kept = [share.kept for tick in run.ticks for share in tick.shares]
    return round(float(np.mean(kept)), 3)


def print_table(found: Sequence[dict[str, Any]]) -> None:
    table = Table(title="Simulated by measured, and both")
    table.add_column("method")
    for what in COMPARED:
        table.add_column(what if what == "output_throughput" else f"{what} p90, ms")
    for one in found:
        cells = [
            f"{one['ratio'][what]:.2f} ({one['simulated'][what]:.1f} / {one['measured'][what]:.1f})"
            for what in COMPARED
        ]
        table.add_row(one["method"], *cells)
    Console().print(table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--load", type=float, default=0.8, help="share of a full batch's capacity")
    parser.add_argument("--execution", default="eager", choices=("eager", "compiled", "auto"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", help="id of a stored load run whose arrivals are taken")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.requests, arguments.slots = 12, 4
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
