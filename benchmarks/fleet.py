"""What static, dynamic and auction trees would bring on 8 to 1,024 GPUs: simulated, not measured.

The scheduler's policy first-come on replicas behind a router, on a virtual clock. Passes cost what
a roofline of the device says (engine/serving/simulate/roofline.py: derived, not measured);
acceptance was measured on the embedded pair and lies in data/acceptance. Writes the tables of
docs/fleet.md between its markers.

    python benchmarks/fleet.py              # both models, all loads and sizes: a few minutes
    python benchmarks/fleet.py --quick      # 8 GPUs, to see that it works; writes nothing
    python benchmarks/fleet.py --measure    # acceptance anew, half a minute

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.paths import data_folder
from engine.serving.simulate.acceptance import MeasuredSteps
from engine.serving.simulate.costs import Costs
from engine.serving.simulate.fleet import Fleet, Load, Served
from engine.serving.simulate.model import StepModel
from engine.serving.simulate.roofline import LLAMA_1B, LLAMA_8B, LLAMA_70B, Roofline
from engine.serving.simulate.shapes import Auction, Dynamic, Plain, Shape, Static

PAGE = Path(__file__).resolve().parent.parent / "docs" / "fleet.md"
ACCEPTANCE = "acceptance/pycode.npz"
#: wide enough to tell of all trees simulated here
WIDE = {"policy": "best-first", "nodes": 40, "depth": 8, "top_k": 4}
SLOTS, PROMPT, TOKENS = 64, (64, 512), (64, 256)
#: of a fleet, and of the few replicas that are loaded up to and beyond what they can do
REQUESTS, MANY_REQUESTS = 24, 256
#: requests per second by what plain decoding in full batches would serve
LOADS = (0.02, 0.1, 0.3, 0.6, 0.9, 1.2, 2.0)
FLEET_LOAD, ROUTED = 0.5, 64
SIZES = (8, 64, 256, 1024)
METHODS = ("plain", "static", "dynamic", "auction")
DYNAMIC_NODES, DEPTH, WIDTH = 16, 5, 4


class Served1(NamedTuple):
    """One simulated load in figures."""

    tokens_per_gpu_s: float  # by GPU and second of working, idle time left out
    busy: float  # share of the time from the first arrival to the last end
    ttft_p90_ms: float
    tpot_p90_ms: float
    e2el_p90_s: float
    nodes: float  # drafted per request and step
    tokens_per_step: float


def main() -> int:
    """Simulate, print, write the page, and return the exit code."""
    arguments = parse_arguments()
    path = data_folder() / ACCEPTANCE
    if arguments.measure:
        measure(path)
    steps = MeasuredSteps.load(path)
    targets = [("8B", Roofline(LLAMA_8B, LLAMA_1B)), ("70B", Roofline(LLAMA_70B, LLAMA_1B, gpus=4))]
    sizes = SIZES[:1] if arguments.quick else SIZES
    loads = (0.1, 0.9) if arguments.quick else LOADS
    begin = time.perf_counter()
    by_load = {
        name: {
            load: all_methods(costs, steps, gpus=4 * costs.gpus, load=load, requests=MANY_REQUESTS)
            for load in loads
        }
        for name, costs in targets
    }
    by_size = {
        name: {size: all_methods(costs, steps, gpus=size, load=FLEET_LOAD) for size in sizes}
        for name, costs in targets
    }
    routers = {
        router: simulate(
            "auction", targets[0][1], steps, gpus=ROUTED, load=FLEET_LOAD, router=router
        )
        for router in ("predicted", "shortest-queue", "round-robin")
    }
    text = tables(targets, by_load, by_size, routers, steps)
    print(text)
    if not arguments.quick:
        write(text)
    seconds = round(time.perf_counter() - begin, 1)
    rows = {
        name: {
            str(load): {m: one._asdict() for m, one in found.items()} for load, found in of.items()
        }
        for name, of in by_load.items()
    }
    print(json.dumps({"benchmark": "fleet", "seconds": seconds, "by_load": rows}))
    return 0


def measure(path: Path) -> None:
    """Wide trees of the embedded pair over its three workloads."""
    from engine.engine import EngineConfig, build_engine
    from engine.models import load_model
    from engine.registry import parse_options
    from engine.requests import Request
    from engine.sampling import Sampling

    target, draft = (load_model(name, device="cpu") for name in ("pycode-target", "pycode-draft"))
    engine = build_engine(
        EngineConfig(
            "dynamic-tree", parse_options("dynamic-tree", WIDE), Sampling(), batch=8,
            execution="eager", ignore_eos=True, capacity=512,
        ),
        target=target,
        draft=draft,
    )  # fmt: skip
    prompts = []
    for workload in ("code", "docstring", "edit"):
        lines = (data_folder() / "prompts" / f"{workload}.jsonl").read_text().splitlines()
        prompts += [json.loads(line)["turns"][0] for line in lines[:8]]
    ids = [target.tokenizer.encode(prompt)[-384:] for prompt in prompts]
    waiting = [Request(at, "", tuple(tokens), 96) for at, tokens in enumerate(ids)]
    steps = []
    while waiting or engine.busy:
        now = [waiting.pop() for _ in range(min(len(waiting), engine.num_free))]
        if now:
            engine.add(*now)
        steps += engine.step().steps
    path.parent.mkdir(exist_ok=True)
    MeasuredSteps.from_steps(steps).save(path)


def shape_of(method: str, steps: MeasuredSteps, costs: Costs) -> Shape:
    """A method as it is simulated."""
    if method == "plain":
        return Plain()
    if method == "static":
        return Static(steps)
    if method == "dynamic":
        return Dynamic(steps, nodes=DYNAMIC_NODES, depth=DEPTH, width=WIDTH)
    return Auction(steps, costs, depth=8, width=WIDTH)


def all_methods(
    costs: Roofline, steps: MeasuredSteps, *, gpus: int, load: float, requests: int = REQUESTS
) -> dict[str, Served1]:
    """Every method under the same arrivals."""
    return {
        method: simulate(method, costs, steps, gpus=gpus, load=load, requests=requests)
        for method in METHODS
    }


def simulate(
    method: str,
    costs: Roofline,
    steps: MeasuredSteps,
    *,
    gpus: int,
    load: float,
    requests: int = REQUESTS,
    router: str = "predicted",
) -> Served1:
    """A load, as a share of plain decoding's capacity, on so many GPUs."""
    replicas = gpus // costs.gpus
    capacity = replicas * plain_rate(costs, steps) / (sum(TOKENS) / 2)
    arrivals = Load.poisson(
        requests * replicas, rate=load * capacity, seed=1, prompt=PROMPT, tokens=TOKENS
    )
    model = StepModel(shape_of(method, steps, costs), costs, steps)
    fleet = Fleet(model, replicas=replicas, num_slots=SLOTS, router=router)
    return figures(arrivals, fleet.serve(arrivals), replicas, costs.gpus)


def plain_rate(costs: Costs, steps: MeasuredSteps) -> float:
    """Tokens per second of a replica that decodes full batches plainly."""
    source, start = steps.walk(0, range(SLOTS))
    context = np.full(SLOTS, (sum(PROMPT) + sum(TOKENS) / 2) / 2)
    return SLOTS / StepModel(Plain(), costs, steps).step(source, start, context).ms * 1e3


def figures(load: Load, served: Served, replicas: int, gpus: int) -> Served1:
    """Of a served load; percentiles over all requests."""
    first_ms = (served.first_token_ns - load.arrival_ns) * 1e-6
    each_ms = (served.ended_ns - served.first_token_ns) * 1e-6 / (load.tokens - 1)
    whole_s = (served.ended_ns - load.arrival_ns) * 1e-9
    tokens = int(load.tokens.sum())
    span = replicas * int(served.ended_ns.max() - load.arrival_ns[0])
    return Served1(
        tokens / (served.busy_ns * 1e-9 * gpus),
        served.busy_ns / span,
        float(np.quantile(first_ms, 0.9)),
        float(np.quantile(each_ms, 0.9)),
        float(np.quantile(whole_s, 0.9)),
        served.drafted / served.request_steps,
        tokens / served.request_steps,
    )


def tables(
    targets: list[tuple[str, Roofline]],
    by_load: dict[str, dict[float, dict[str, Served1]]],
    by_size: dict[str, dict[int, dict[str, Served1]]],
    routers: dict[str, Served1],
    steps: MeasuredSteps,
) -> str:
    """The page's tables."""
    lines = []
    for name, costs in targets:
        lines += [f"### {name} under load, {4 * costs.gpus} GPUs", ""]
        lines += [f"Four replicas. Passes: {costs.said}.", ""]
        lines += [
            "| load | method | nodes | tokens per step | tokens/s per working GPU | by plain |"
            " TTFT p90, ms | TPOT p90, ms | E2EL p90, s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [row(f"{load:g}", found) for load, found in by_load[name].items()]
        lines.append("")
    lines += [f"### Fleets of 8 to 1,024 GPUs, load {FLEET_LOAD}", ""]
    lines += [
        "| target | GPUs | " + " | ".join(f"{m}: E2EL p90, s" for m in METHODS) + " |",
        "|---" * (2 + len(METHODS)) + "|",
    ]
    for name, found in by_size.items():
        for size, of in found.items():
            cells = " | ".join(f"{of[method].e2el_p90_s:.2f}" for method in METHODS)
            lines.append(f"| {name} | {size:,} | {cells} |")
    lines += ["", f"### Routers: 8B on {ROUTED} GPUs, auction, load {FLEET_LOAD}", ""]
    lines += ["| router | TTFT p90, ms | E2EL p90, s |", "|---|---|---|"]
    lines += [
        f"| {router} | {of.ttft_p90_ms:.1f} | {of.e2el_p90_s:.2f} |"
        for router, of in routers.items()
    ]
    lines += ["", f"Acceptance: {steps.num_steps} measured steps of {steps.num_requests} requests."]
    return "\n".join(lines)


def row(load: str, found: dict[str, Served1]) -> str:
    """Lines of one load, a method each."""
    plain = found["plain"].tokens_per_gpu_s
    return "\n".join(
        f"| {load} | {method} | {of.nodes:.1f} | {of.tokens_per_step:.2f} |"
        f" {of.tokens_per_gpu_s:,.0f} | {of.tokens_per_gpu_s / plain:.2f} |"
        f" {of.ttft_p90_ms:.1f} | {of.tpot_p90_ms:.2f} | {of.e2el_p90_s:.2f} |"
        for method, of in found.items()
    )


def write(text: str) -> None:
    """Into the page, between its markers."""
    begin, end = "<!-- tables -->", "<!-- end of tables -->"
    before, _, rest = PAGE.read_text().partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 GPUs; writes nothing")
    parser.add_argument("--measure", action="store_true", help="measure acceptance anew")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
