"""The headline of the sources: the same tree drafted and scored in five ways, stage by stage.

On the same prompts: a static tree; a dynamic tree in sequence (one rank, plain Python); the same
with compiled kernels; constructed in parallel on 2 and 4 ranks; with the target cut over ranks
(tensor-parallel); and with the draft model on a rank of its own, drafting ahead. All forms of the
dynamic tree draft the same trees, so tokens per step are equal and times say it all.

Stages of a step, medians over requests of the mean per step: construct (drafting but for prune),
prune (choosing the best n and assembling the tree), score (the target's pass), verify, rest.
Speedups are against the static tree and against the dynamic tree in sequence; a bottleneck is the
stage that takes most of a step. Exchange is what rank 0 spends in all-gathers or waits for trees, a
part of construct. Arms take turns prompt by prompt (`draftree compare`), and the comparison is kept
as an experiment: its id is printed. With a GPU visible the same is measured there too, one GPU per
rank.

    python benchmarks/parallel.py                  # some minutes
    python benchmarks/parallel.py --quick          # one prompt, 2 ranks, to see that it works
    python benchmarks/parallel.py --ranks 2,4 --target ./my-model --draft ./my-draft

Ranks that are more than the processors take turns on them: then this shows what ranks cost, not
what they gain. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch

from engine.errors import UserError
from engine.growth import Growth
from engine.models import load_model
from engine.parallel.tensor_parallel import degrees
from workbench.compare import compare
from workbench.comparing.decoders import Decoded, EngineDecoder
from workbench.comparing.result import CompareSpec, Comparison
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET

STATIC = "static-tree:expansion={expansion}"
DYNAMIC = "dynamic-tree:policy=eagle2,nodes={nodes},depth={depth},top_k={top_k}"
STAGES = ("construct", "prune", "score", "verify", "rest")
MS = 1e6


@dataclass
class Spent:
    """Nanoseconds of one request of one arm, per step."""

    stages: dict[str, float]
    exchange: float
    tokens: float


@dataclass
class Watch:
    """Times that records do not carry: pruning, by arm, while this is in force."""

    prune_ns: int = 0
    found: dict[str, list[Spent]] = field(default_factory=lambda: defaultdict(list))

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as pruning."""

        @wraps(function)
        def run(*arguments: Any, **how: Any) -> Any:
            begin = time.perf_counter_ns()
            try:
                return function(*arguments, **how)
            finally:
                self.prune_ns += time.perf_counter_ns() - begin

        return run

    def decoding(self, decode: Callable[..., Decoded]) -> Callable[..., Decoded]:
        """`EngineDecoder.decode`, its steps noted by arm."""

        @wraps(decode)
        def run(decoder: EngineDecoder, *arguments: Any) -> Decoded:
            self.prune_ns = 0
            found = decode(decoder, *arguments)
            self.found[decoder.arm.label].append(self._spent(found))
            return found

        return run

    def _spent(self, decoded: Decoded) -> Spent:
        steps = len(decoded.steps)
        total = {
            stage: sum(getattr(step.times, stage) for step in decoded.steps)
            for stage in decoded.steps[0].times._fields
        }
        prune = min(self.prune_ns, total["draft"])
        waits = (row.end_ns - row.begin_ns for row in decoded.lanes
                 if row.rank == 0 and row.lane == "network")  # fmt: skip
        stages = {
            "construct": total["draft"] - prune,
            "prune": prune,
            "score": total["score"],
            "verify": total["verify"],
        }
        stages["rest"] = sum(total.values()) - sum(stages.values())
        return Spent(
            {stage: spent / steps for stage, spent in stages.items()},
            exchange=sum(waits) / steps,
            tokens=sum(step.num_kept for step in decoded.steps) / steps,
        )


def arms_of(given: argparse.Namespace, device: str) -> dict[str, str]:
    """Arms by what they are called in the table."""
    tree = DYNAMIC.format(nodes=given.nodes, depth=given.depth, top_k=given.top_k)
    plain = f"{tree},kernels=off"
    there = torch.cuda.device_count() if device == "cuda" else max(given.ranks)
    counts = [count for count in given.ranks if 1 < count <= there]
    possible = degrees(load_model(given.target, device="cpu"), max(given.ranks))
    arms = {
        "static tree": f"{STATIC.format(expansion=given.expansion)},kernels=off",
        "dynamic, in sequence": plain,
        "dynamic, kernels": tree,
    }
    for count in counts:
        arms[f"dynamic, constructed on {count} ranks"] = f"{plain},ranks={count}"
    for count in counts:
        if count in possible:
            arms[f"dynamic, target cut over {count} ranks"] = (
                f"{plain},ranks={count},parallel=target"
            )
    if counts:
        arms["dynamic, draft on its own rank"] = f"{plain},ranks=2,placement=own"
    return arms


def measured(
    given: argparse.Namespace, device: str
) -> tuple[Comparison, dict[str, str], dict[str, list[Spent]]]:
    """The comparison, its arms, and what each spent."""
    arms = arms_of(given, device)
    spec = CompareSpec(
        methods=list(arms.values()),
        baselines=[],
        workloads=[given.workload],
        limit=given.prompts,
        target=given.target,
        draft=given.draft,
        repeats=given.repeats,
        max_new_tokens=given.tokens,
        device=device,
        executions=["eager"],
    )
    watch = Watch()
    kept = (Growth.best, Growth.finish, EngineDecoder.decode)
    Growth.best, Growth.finish = watch.timed(kept[0]), watch.timed(kept[1])  # type: ignore[method-assign]
    EngineDecoder.decode = watch.decoding(kept[2])  # type: ignore[method-assign]
    try:
        found = compare(spec, command=f"python benchmarks/parallel.py {' '.join(sys.argv[1:])}")
    finally:
        Growth.best, Growth.finish, EngineDecoder.decode = kept  # type: ignore[method-assign]
    return found, arms, {label: rows[1:] for label, rows in watch.found.items()}  # less the warm-up


def rows_of(
    found: Comparison, arms: dict[str, str], spent: dict[str, list[Spent]]
) -> list[dict[str, Any]]:
    """A row per arm: milliseconds by stage, speedups, the bottleneck."""
    matched = {run.label: (run.matched, run.compared, run.error) for run in found.arms}
    rows = []
    for name, label in arms.items():
        if not spent.get(label):
            rows.append({"arm": name, "error": matched.get(label, ("", "", "not measured"))[2]})
            continue
        stages = {
            stage: statistics.median(one.stages[stage] for one in spent[label]) / MS
            for stage in STAGES
        }
        total = sum(stages.values())
        tokens = statistics.median(one.tokens for one in spent[label])
        rows.append(
            {
                "arm": name,
                "stages_ms": stages,
                "step_ms": total,
                "exchange_ms": statistics.median(one.exchange for one in spent[label]) / MS,
                "tokens_per_step": tokens,
                "tokens_per_s": 1e3 * tokens / total,
                "bottleneck": max(stages, key=lambda stage: stages[stage]),
                "matched": matched[label][0],
                "compared": matched[label][1],
            }
        )
    for row in rows:
        for against, name in ((rows[0], "over_static"), (rows[1], "over_sequence")):
            if "error" in row or "error" in against:
                continue
            row[name] = row["tokens_per_s"] / against["tokens_per_s"]
            row[f"{name}_by_stage"] = {
                stage: against["stages_ms"][stage] / row["stages_ms"][stage]
                for stage in STAGES[:4]
                if row["stages_ms"][stage] > 0
            }
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Two tables: milliseconds per step, and speedups per stage."""
    lines = [
        "| form | construct | of it exchange | prune | score | verify | rest | step, ms |"
        " tokens/step | tokens/s | bottleneck |",
        "|---|" + "---:|" * 9 + "---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['arm']} | {row['error']} |" + " |" * 9)
            continue
        ms = row["stages_ms"]
        lines.append(
            f"| {row['arm']} | {ms['construct']:.2f} | {row['exchange_ms']:.2f} |"
            f" {ms['prune']:.3f} | {ms['score']:.2f} | {ms['verify']:.3f} | {ms['rest']:.2f} |"
            f" {row['step_ms']:.2f} | {row['tokens_per_step']:.2f} | {row['tokens_per_s']:.0f} |"
            f" {row['bottleneck']} |"
        )
    lines += [
        "",
        "| form | speed over static | over in sequence | construct | prune | score | verify |",
        "|---|" + "---:|" * 6,
    ]
    for row in rows:
        if "error" in row or "over_sequence" not in row:
            continue
        by_stage = row["over_sequence_by_stage"]
        cells = " | ".join(
            f"{by_stage[stage]:.2f}x" if stage in by_stage else "elsewhere" for stage in STAGES[:4]
        )
        over = row.get("over_static")
        lines.append(
            f"| {row['arm']} | {f'{over:.2f}x' if over else ''} | {row['over_sequence']:.2f}x |"
            f" {cells} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure on the CPU, and on GPUs where there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default=EMBEDDED_TARGET)
    parser.add_argument("--draft", default=EMBEDDED_DRAFT)
    parser.add_argument("--workload", default="code")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--expansion", default="4,2,2,1")
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--top-k", type=int, default=6)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.prompts, given.tokens, given.repeats, given.ranks = 1, 16, 1, "1,2"
    given.ranks = [int(count) for count in given.ranks.split(",")]
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    outcome: dict[str, Any] = {}
    for device in devices:
        found, arms, spent = measured(given, device)
        rows = rows_of(found, arms, spent)
        outcome[device] = {
            "comparison": found.comparison_id,
            "threads": found.environment.get("threads"),
            "cpu": found.environment.get("cpu"),
            "gpu": found.environment.get("gpu"),
            "rows": rows,
        }
        print(f"\n{device}: comparison {found.comparison_id}, {found.environment.get('threads')}"
              f" threads per rank, {found.environment.get('cores')} cores\n")  # fmt: skip
        print(markdown(rows))
    print(json.dumps(outcome))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
