"""Do the methods pay on this machine? Every arm in alternation, in one run, printed as ratios.

Measured: float32, 2 threads, greedy, held-out code, 128 new tokens each; plain decoding, Hugging
Face `generate` plain and assisted (at its best of a few settings), and every method of the
registry at small budgets: those with a draft model, lookups, and those that draft from the target
itself, with what their heads or models cost to train. Why ratios: absolute speeds belong to a
machine and an hour; the arms share both. Protocol and statistics are those of `draftree compare`
(docs/measuring.md), there is no second one.

    python benchmarks/methods.py              # half an hour, more if forwards must be compiled
    python benchmarks/methods.py --set own    # those that draft from the target itself
    python benchmarks/methods.py --quick      # a few prompts and arms, to see that it works

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import training_costs
from methods_tables import (
    against,
    named,
    overhead,
    print_costs,
    print_hardware,
    print_stages,
    print_table,
    print_waterfalls,
)
from training_costs import Cost

from engine.errors import DecodeError, UserError
from engine.models import LoadedModel, resolve_device
from workbench.compare import CompareSpec, Comparison, compare
from workbench.comparing import wording
from workbench.comparing.arms import (
    HF_ASSISTED,
    HF_GENERATE,
    PLAIN,
    parse_arm,
    parse_arms,
    split_methods,
)
from workbench.comparing.rows import Row, rows
from workbench.events import Event, Progress
from workbench.models import load
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET
from workbench.statistics import Interval

#: arms by what drafts
DRAFTED = (
    "speculative:length=3",
    "speculative:length=4",
    "speculative:length=5",
    "static-tree:expansion=2,1,1",
    "static-tree:expansion=2,2,1,1",
    "dynamic-tree:policy=eagle2,nodes=4",
    "dynamic-tree:policy=eagle2,nodes=6",
    "dynamic-tree:policy=eagle2,nodes=8",
    "dynamic-tree:policy=opt-tree,nodes=6",
    "dynamic-tree:policy=best-first,nodes=6",
    "dynamic-tree:policy=grow-and-prune,nodes=6",
    "dynamic-tree:policy=auto",
    "staged",
    "universal",
)
LOOKUPS = (
    "prompt-lookup",
    "suffix",
    "combine",
    "ngram",
    "token-recycling:nodes=8",
)
OWN = (
    "layer-skip",
    "early-exit",
    "kangaroo",
    "medusa:nodes=3",
    "medusa:nodes=5",
    "medusa:nodes=8",
    "eagle:nodes=4,depth=3",
    "eagle:nodes=6",
)
SETS = {"all": DRAFTED + LOOKUPS + OWN, "drafted": DRAFTED, "lookups": LOOKUPS, "own": OWN}
QUICK = ("speculative:length=4", "dynamic-tree:policy=eagle2,nodes=6", *OWN)
#: what the project set out to reach on two cores
GOALS = {
    "plain / hf-generate": 1.7,
    "best / plain": 1.3,
    "best trained head / plain": 1.3,
    "best / hf-assisted": 2.0,
}
MOST_OVERHEAD = 0.08


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="draftree-benchmark-") as scratch:
        try:
            spec, left_out = spec_from(arguments)
            found = compare(spec, tell, runs=arguments.runs or Path(scratch))
            trained = training_costs.costs(parse_arms(spec.methods, ()), spec, target_of(spec))
        except (UserError, DecodeError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UserError) else 1
    table = rows(found)
    print_hardware(found)
    print_table(table)
    print_stages(table)
    print_waterfalls(table)
    print_costs(trained)
    ratios = lead_ratios(table)
    print_ratios(ratios, table)
    for note in (*left_out, *found.notes):
        print(f"note: {note}")
    print(json.dumps(as_json(found, table, ratios) | {"trained": costs_json(trained)}))
    return 0


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit", type=int, default=8, help="prompts (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="times each prompt is decoded")
    parser.add_argument("--methods", help="arms, as for `draftree compare`, in place of a set")
    parser.add_argument("--set", choices=SETS, default="all", help="which arms (default all)")
    parser.add_argument("--quick", action="store_true", help="2 prompts, 1 repeat, few arms")
    parser.add_argument("--workload", default="code")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--target", default=EMBEDDED_TARGET)
    parser.add_argument("--draft", default=EMBEDDED_DRAFT)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--execution", default="auto", help="auto, eager or compiled")
    parser.add_argument("--runs", type=Path, help="keep the stored runs in this folder")
    return parser.parse_args()


def spec_from(arguments: argparse.Namespace) -> tuple[CompareSpec, list[str]]:
    """The comparison to make, and what was left out of it, a sentence each."""
    methods = split_methods(arguments.methods) if arguments.methods else SETS[arguments.set]
    if arguments.quick and not arguments.methods:
        methods = [method for method in QUICK if method in methods]
    spec = CompareSpec(
        methods=list(methods),
        workloads=[arguments.workload],
        limit=2 if arguments.quick else arguments.limit,
        repeats=1 if arguments.quick else arguments.repeats,
        max_new_tokens=arguments.max_new_tokens,
        target=arguments.target,
        draft=arguments.draft,
        dtypes=[arguments.dtype],
        device=arguments.device,
        executions=[arguments.execution],
        threads=arguments.threads,
    )
    if arguments.methods:  # what was asked for and cannot be had is an error
        return spec, []
    reasons = {m: training_costs.why_not(parse_arm(m), target_of(spec)) for m in methods}
    possible = [method for method, reason in reasons.items() if not reason]
    left_out = [f"Left out: {method}; {reason}" for method, reason in reasons.items() if reason]
    return spec.model_copy(update={"methods": possible}), left_out


def target_of(spec: CompareSpec) -> LoadedModel:
    """The target, which comparing keeps loaded."""
    return load(spec.target, dtype=spec.dtypes[0], device=resolve_device(spec.device))


_phase = [""]


def tell(event: Event) -> None:
    """Progress on stderr, a line for each phase and each tenth of the measuring."""
    if isinstance(event, Progress):
        tenth = "" if event.phase != "measure" else f" {10 * int(10 * (event.fraction or 0))}%"
        if event.phase + tenth != _phase[0]:
            _phase[0] = event.phase + tenth
            print(f"{event.phase}{tenth}: {event.message}", file=sys.stderr, flush=True)


def costs_json(trained: Mapping[str, Cost]) -> dict[str, Any]:
    """The same for the last line."""
    return {method: cost._asdict() for method, cost in trained.items()}


def lead_ratios(table: Sequence[Row]) -> dict[str, Interval]:
    """The ratios the project set itself goals for, paired by prompt like every speedup."""
    plain, best = named(table, PLAIN), wording.best(table)
    generate, assisted = named(table, HF_GENERATE), named(table, HF_ASSISTED)
    found = {}
    if plain and generate:
        found["plain / hf-generate"] = against(plain, generate)
    if best:
        found["best / plain"] = best.speedup
    heads = [row for row in table if training_costs.drafts_with_head(row.method)]
    if heads:
        found["best trained head / plain"] = max((r.speedup for r in heads), key=lambda i: i.value)
    if best and assisted:
        found["best / hf-assisted"] = against(best, assisted)
    return found


def print_ratios(ratios: dict[str, Interval], table: Sequence[Row]) -> None:
    """The lead ratios, the overhead of the best arm, and which goals are reached."""
    best = wording.best(table)
    print(f"\nbest: {best.method if best else '-'}")
    for name, interval in ratios.items():
        reached = "reached" if interval.value >= GOALS[name] else "not reached"
        said = f"{interval.value:.2f} {wording.bounds(interval)}"
        print(f"{name}: {said}, goal {GOALS[name]:.1f} {reached}")
    if best:
        share = overhead(best)
        reached = "reached" if share <= MOST_OVERHEAD else "not reached"
        print(f"overhead of the best: {share:.1%} of a step, goal {MOST_OVERHEAD:.0%} {reached}")


def as_json(found: Comparison, table: Sequence[Row], ratios: dict[str, Interval]) -> dict[str, Any]:
    """The last line: ratios, rows without their prompts, and what they belong to."""
    best = wording.best(table)
    known = found.environment
    return {
        "benchmark": "methods",
        "device": (known["gpu"] or {}).get("name") or known["cpu"],
        "threads": known["threads"],
        "mode": known["mode"],
        "models": {role: model["content_hash"] for role, model in known["models"].items()},
        "best": best.method if best else None,
        "ratios": {
            name: {
                "value": interval.value,
                "low": _known(interval.low),
                "high": _known(interval.high),
            }
            for name, interval in ratios.items()
        },
        "overhead": overhead(best) if best else None,
        "rows": [
            {key: value for key, value in row.as_json().items() if key != "prompts"}
            | {"overhead": overhead(row)}
            for row in table
        ],
    }


def _known(value: float) -> float | None:
    return None if value != value else value


if __name__ == "__main__":
    sys.exit(main())
