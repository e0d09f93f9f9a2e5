"""Do the methods pay on this machine? Every arm in alternation, in one run, printed as ratios.

Measured: float32, 2 threads, greedy, held-out code, 128 new tokens each; plain decoding, Hugging
Face `generate` plain and assisted (at its best of a few settings), chains, static and dynamic trees
at small budgets. Why ratios: absolute speeds belong to a machine and an hour; the arms share both.
Protocol and statistics are those of `draftree compare` (docs/measuring.md), there is no second one.

    python benchmarks/methods.py            # about ten minutes, more if forwards must be compiled
    python benchmarks/methods.py --quick    # a few prompts and arms, to see that it works

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.errors import DecodeError, UserError
from workbench.compare import CompareSpec, Comparison, compare
from workbench.comparing import wording
from workbench.comparing.arms import HF_ASSISTED, HF_GENERATE, PLAIN, split_methods
from workbench.comparing.rows import Row, rows
from workbench.events import Event, Progress
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET
from workbench.statistics import Interval, paired_speedup

METHODS = (
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
)
QUICK = ("speculative:length=4", "dynamic-tree:policy=eagle2,nodes=6")
#: stages that are overhead: neither the draft's nor the target's work
OVERHEAD = ("verify", "commit", "record", "unaccounted")
#: what the project set out to reach on two cores
GOALS = {
    "plain / hf-generate": 1.7,
    "best / plain": 1.3,
    "best / hf-assisted": 2.0,
}
MOST_OVERHEAD = 0.08


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="draftree-benchmark-") as scratch:
        try:
            found = compare(spec_from(arguments), tell, runs=arguments.runs or Path(scratch))
        except (UserError, DecodeError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UserError) else 1
    table = rows(found)
    print_hardware(found)
    print_table(table)
    print_stages(table)
    ratios = lead_ratios(table)
    print_ratios(ratios, table)
    for note in found.notes:
        print(f"note: {note}")
    print(json.dumps(as_json(found, table, ratios)))
    return 0


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit", type=int, default=8, help="prompts (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="times each prompt is decoded")
    parser.add_argument("--methods", help="arms, as for `draftree compare`")
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


def spec_from(arguments: argparse.Namespace) -> CompareSpec:
    """The comparison to make."""
    methods = split_methods(arguments.methods) if arguments.methods else list(METHODS)
    if arguments.quick and not arguments.methods:
        methods = list(QUICK)
    return CompareSpec(
        methods=methods,
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


_phase = [""]


def tell(event: Event) -> None:
    """Progress on stderr, a line for each phase and each tenth of the measuring."""
    if isinstance(event, Progress):
        tenth = "" if event.phase != "measure" else f" {10 * int(10 * (event.fraction or 0))}%"
        if event.phase + tenth != _phase[0]:
            _phase[0] = event.phase + tenth
            print(f"{event.phase}{tenth}: {event.message}", file=sys.stderr, flush=True)


def print_hardware(found: Comparison) -> None:
    """What the figures belong to."""
    known = found.environment
    packages = known["packages"]
    device = (known["gpu"] or {}).get("name") or f"{known['cpu']}, {known['cores']} cores"
    print(
        f"{device}; {known['threads']} threads; {known['dtype']}; {known['mode']}; "
        f"torch {packages['torch']}, transformers {packages['transformers']}"
    )
    for role, model in known["models"].items():
        print(f"{role}: {model['name']} ({model['content_hash']})")
    spec = found.spec
    about = found.workloads[spec.workloads[0]]
    print(
        f"{spec.workloads[0]}: {about['requests']} prompts, {spec.max_new_tokens} new tokens, "
        f"{spec.repeats} repeats in alternation, greedy\n"
    )


def print_table(table: Sequence[Row]) -> None:
    """Every arm against plain decoding, and against both Hugging Face baselines."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("method")
    names = ("speedup", "95%", "x hf-generate", "x hf-assisted", "tau", "repeated", "accepted",
             "tokens/s", "lossless")  # fmt: skip
    for name in names:
        shown.add_column(name, justify="right")
    for row in table:
        shown.add_row(
            row.method + (f" ({row.setting})" if row.setting else ""),
            f"{row.speedup.value:.2f}",
            wording.bounds(row.speedup) if row.method != PLAIN else wording.DASH,
            _times(row, _named(table, HF_GENERATE)),
            _times(row, _named(table, HF_ASSISTED)),
            f"{row.tokens_per_step:.2f}",
            wording.percent(row.repetition),
            wording.percent(row.acceptance_rate),
            wording.rate(row.tokens_per_second),
            wording.lossless(row),
        )
    _console().print(shown)


def print_stages(table: Sequence[Row]) -> None:
    """Share of each stage in a step; the last column is what neither model does."""
    stages = tuple(table[0].stages_ns)
    shown = Table(box=None, pad_edge=False, title="stages, % of a step", title_justify="left")
    shown.add_column("method")
    for name in ("ms a step", *stages, "overhead"):
        shown.add_column(name, justify="right")
    for row in table:
        total = sum(row.stages_ns.values())
        if not total or row.method in (HF_GENERATE, HF_ASSISTED):
            continue
        shares = [f"{100 * row.stages_ns[stage] / total:.1f}" for stage in stages]
        shown.add_row(row.method, f"{row.step_ms:.2f}", *shares, f"{100 * overhead(row):.1f}")
    _console().print()
    _console().print(shown)


def overhead(row: Row) -> float:
    """Verify, commit, record and unaccounted, as a share of a step."""
    total = sum(row.stages_ns.values())
    return sum(row.stages_ns[stage] for stage in OVERHEAD) / total if total else 0.0


def lead_ratios(table: Sequence[Row]) -> dict[str, Interval]:
    """The ratios the project set itself goals for, paired by prompt like every speedup."""
    plain, best = _named(table, PLAIN), wording.best(table)
    generate, assisted = _named(table, HF_GENERATE), _named(table, HF_ASSISTED)
    found = {}
    if plain and generate:
        found["plain / hf-generate"] = against(plain, generate)
    if best:
        found["best / plain"] = best.speedup
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


def against(row: Row, baseline: Row) -> Interval:
    """How many times faster than another arm, over the prompts both decoded."""
    theirs = {prompt.request: prompt.decode_ms for prompt in baseline.prompts}
    pairs = [(theirs[p.request], p.decode_ms) for p in row.prompts if p.request in theirs]
    return paired_speedup([base for base, _ in pairs], [own for _, own in pairs])


def _times(row: Row, baseline: Row | None) -> str:
    return f"{against(row, baseline).value:.2f}" if baseline else wording.DASH


def _named(table: Sequence[Row], name: str) -> Row | None:
    return next((row for row in table if row.method.partition(":")[0] == name), None)


def _known(value: float) -> float | None:
    return None if value != value else value


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 180, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
