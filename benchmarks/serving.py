"""Many requests at once: does a batch pay, and do auctioned trees beat fixed ones at every load?

Measured, greedy in float32, every request to its full length:

1. 8 requests in one batch against the same 8 one after another, with plain decoding and with the
   auction. Goal: twice the throughput.
2. At 1, 4, 8 and 16 concurrent requests: plain decoding, trees of a fixed number of nodes for each
   request, and the auction (`dynamic-tree` with policy auto, a profile measured for that batch).
   Goal: the auction at least as good as every fixed number, and never below 0.97 of plain decoding.

All arms take turns, round after round, each round on other prompts and in another order; a round of
an arm is paired with the same round of the other, ratios are of totals with a 95% bootstrap
interval over rounds. Time is that from the end of prefill (docs/measuring.md); the whole time, with
prefill, stands beside. Tokens of every request are compared with plain decoding's.

    python benchmarks/serving.py            # about ten minutes on two cores; a quiet machine
    python benchmarks/serving.py --quick    # few requests, to see that it works

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from engine.costs import Known, Profile
from engine.decode import Engine
from engine.engine import EngineConfig, build_engine
from engine.errors import UserError
from engine.registry import parse_options
from engine.requests import Request
from engine.sampling import Sampling
from engine.serving.scheduler import Scheduler
from engine.serving.trace import ArrivalRow, Order
from workbench.conversation import conversations
from workbench.job import use_threads
from workbench.models import Pair, load_pair
from workbench.profiling.measuring import Extent, measure_pair
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, RunSpec
from workbench.statistics import Interval, paired_speedup
from workbench.workloads import load_workload

PLAIN, AUCTION = "plain", "auction"
LEVELS, FIXED = (1, 4, 8, 16), (1, 2, 3, 4, 6, 8)
BATCH = 8
#: deepest level of a fixed tree; the auction may go as deep
DEPTH = 4
GOAL_BATCH, GOAL_PLAIN = 2.0, 0.97


class Arm(NamedTuple):
    """A way to decode. `slots` is how many requests share a pass."""

    label: str
    method: str
    options: dict[str, Any]
    budgets: str
    slots: int


@dataclass
class Times:
    """An arm's rounds, in seconds: from the end of prefill, and whole."""

    decode_R: list[float] = field(default_factory=list)
    whole_R: list[float] = field(default_factory=list)
    tokens: int = 0
    steps: int = 0
    nodes: int = 0
    differing: int = 0  # requests whose tokens were not those of plain decoding


class Bench:
    """The pair, its prompts, and engines as they are asked for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.spec = RunSpec(
            target=arguments.target, draft=arguments.draft, workload=arguments.workload,
            max_new_tokens=arguments.max_new_tokens, chat_template=False,
        )  # fmt: skip
        use_threads(arguments.threads)
        self.pair: Pair = load_pair(self.spec, on_progress=lambda message, share: None)
        questions = load_workload(arguments.workload)
        talks = conversations(questions, tokenizer=self.pair.target.tokenizer, spec=self.spec)
        self.prompts = [talk.next_request().prompt_ids for talk in talks]
        self.modes: set[str] = set()

    def requests(self, number: int, count: int) -> list[Request]:
        """The requests of a round: other prompts in each."""
        first = number * count
        return [
            Request(at, "", self.prompts[at % len(self.prompts)], self.arguments.max_new_tokens)
            for at in range(first, first + count)
        ]

    def engine(self, arm: Arm, known: Callable[[str], Known]) -> Engine:
        """An engine for an arm."""
        longest = max(map(len, self.prompts)) + self.arguments.max_new_tokens
        config = EngineConfig(
            method=arm.method, options=parse_options(arm.method, arm.options),
            sampling=Sampling(), batch=arm.slots, execution=self.arguments.execution,
            ignore_eos=True, capacity=min(longest, self.pair.target.context_length),
            profile_for=known,
        )  # fmt: skip
        draft = None if arm.method == "autoregressive" else self.pair.draft
        engine = build_engine(config, target=self.pair.target, draft=draft)
        self.modes.add(engine.mode)
        return engine

    def profile(self, slots: int) -> Callable[[str], Known]:
        """Costs of passes at this batch, measured now."""
        measured = measure_pair(
            self.pair, execution=self.arguments.execution,
            extent=self.arguments.extent._replace(batch=slots),
            on_progress=lambda phase, message, share: None, should_stop=lambda: False,
        )  # fmt: skip
        return lambda mode: Known(Profile(measured.costs), f"measured at batch {slots}")


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    try:
        bench = Bench(arguments)
        batch = batch_against_one(bench)
        levels = {slots: level(bench, slots) for slots in arguments.levels}
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print_batch(batch)
    print_levels(levels)
    found = {
        "benchmark": "serving", "mode": "+".join(sorted(bench.modes)),
        "threads": arguments.threads, "rounds": arguments.rounds,
        "max_new_tokens": arguments.max_new_tokens, "batch_of_8": batch, "levels": levels,
        "goals": goals(batch, levels),
    }  # fmt: skip
    print(json.dumps(found))
    return 0


# --- measuring ----------------------------------------------------------------------------


def serve(
    engine: Engine, requests: Sequence[Request], budgets: str, into: Times | None
) -> dict[int, list[int]]:
    """All requests through a scheduler, as many at once as there are slots; tokens by index."""
    scheduler = Scheduler({"": engine}, budgets=budgets, max_waiting=len(requests) + 1)
    rows: dict[int, ArrivalRow] = {}
    tokens: dict[int, list[int]] = {}
    begin = perf_counter_ns()
    for request in requests:
        scheduler.submit(Order(request, 0))
    steps = []
    while scheduler.busy:
        changes = scheduler.step()
        rows |= {row.request: row for row in changes.arrivals}
        tokens |= {record.request: record.token_ids for record in changes.finished}
        steps += changes.steps
    whole_ns = perf_counter_ns() - begin
    lost = [row.message for row in rows.values() if row.reason != "length"]
    if lost:
        raise UserError(f"{len(lost)} requests did not complete: {lost[0]}")
    if into is not None:
        prefill_ns = sum((row.prefilled_ns or 0) - (row.admitted_ns or 0) for row in rows.values())
        into.decode_R.append((whole_ns - prefill_ns) / 1e9)
        into.whole_R.append(whole_ns / 1e9)
        into.tokens += sum(map(len, tokens.values()))
        into.steps += len(steps)
        into.nodes += sum(step.tree.num_drafted for step in steps)
    return tokens


def measure(bench: Bench, arms: list[Arm], *, requests: int, slots: int) -> dict[str, Times]:
    """Rounds of all arms in turn; the first arm is the one whose tokens the others must have."""
    known = {size: bench.profile(size) for size in sorted({arm.slots for arm in arms})}
    engines = {arm.label: bench.engine(arm, known[arm.slots]) for arm in arms}
    times = {arm.label: Times() for arm in arms}
    for number in range(-bench.arguments.warm_up, bench.arguments.rounds):
        tell(f"{slots} at once, round {number + 1} of {bench.arguments.rounds}")
        asked = bench.requests(number + bench.arguments.warm_up, requests)
        outputs: dict[str, dict[int, list[int]]] = {}
        shift = number % len(arms)
        for arm in arms[shift:] + arms[:shift]:
            into = times[arm.label] if number >= 0 else None
            outputs[arm.label] = serve(engines[arm.label], asked, arm.budgets, into)
        expected = outputs[arms[0].label]
        for label, found in outputs.items():
            times[label].differing += sum(found[at] != expected[at] for at in expected)
    return times


def batch_against_one(bench: Bench) -> dict[str, Any]:
    """8 requests together against one after another, plain and with the auction."""
    found: dict[str, Any] = {}
    for label in (PLAIN, AUCTION):
        arms = [arm_of(label, 1)._replace(label="one by one"), arm_of(label, BATCH)]
        times = measure(bench, arms, requests=BATCH, slots=BATCH)
        one, together = times["one by one"], times[label]
        found[label] = compared(one, together) | {"differing": together.differing}
    return found


def level(bench: Bench, slots: int) -> dict[str, Any]:
    """All arms at so many concurrent requests."""
    fixed = [str(nodes) for nodes in bench.arguments.fixed]
    arms = [arm_of(label, slots) for label in (PLAIN, *fixed, AUCTION)]
    times = measure(bench, arms, requests=max(2 * slots, 4), slots=slots)
    found: dict[str, Any] = {
        arm.label: compared(times[PLAIN], times[arm.label])
        | {
            "nodes": times[arm.label].nodes / times[arm.label].steps,
            "tokens_per_step": times[arm.label].tokens / times[arm.label].steps,
            "differing": times[arm.label].differing,
        }
        for arm in arms
    }
    found["auction_against_fixed"] = {
        label: compared(times[label], times[AUCTION]) for label in fixed
    }
    return found


def arm_of(label: str, slots: int) -> Arm:
    """Plain decoding, the auction, or a fixed number of nodes."""
    if label == PLAIN:
        return Arm(label, "autoregressive", {}, "auction", slots)
    if label == AUCTION:
        return Arm(label, "dynamic-tree", {"policy": "auto", "depth": DEPTH}, "auction", slots)
    nodes = int(label)
    options = {"policy": "eagle2", "nodes": nodes, "depth": min(DEPTH, nodes)}
    return Arm(label, "dynamic-tree", options, f"fixed:{nodes}", slots)


def compared(baseline: Times, arm: Times) -> dict[str, Any]:
    """An arm's throughput by the baseline's: from the end of prefill, and whole."""
    decode = paired_speedup(baseline.decode_R, arm.decode_R)
    whole = paired_speedup(baseline.whole_R, arm.whole_R)
    return {
        "ratio": decode.value, "low": finite(decode.low), "high": finite(decode.high),
        "whole": whole.value, "whole_low": finite(whole.low), "whole_high": finite(whole.high),
        "tokens_per_second": arm.tokens / sum(arm.decode_R),
    }  # fmt: skip


def finite(value: float) -> float | None:
    """None where there is no interval."""
    return value if value == value else None


def goals(batch: dict[str, Any], levels: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What was to be shown, and whether it was: by the ratio itself and by its interval."""
    worst = {
        slots: min(found["auction_against_fixed"].items(), key=lambda item: item[1]["ratio"])
        for slots, found in levels.items()
    }
    return {
        "batch_of_8": {
            label: {"ratio": one["ratio"], "whole": one["whole"], "met": one["ratio"] >= GOAL_BATCH}
            for label, one in batch.items()
        },
        "auction_against_best_fixed": {
            slots: {
                "nodes": label, "ratio": one["ratio"], "low": one["low"], "high": one["high"],
                "met": one["ratio"] >= 1.0,
                "within_noise": (one["high"] or one["ratio"]) >= 1.0,
            }
            for slots, (label, one) in worst.items()
        },
        "auction_against_plain": {
            slots: {"ratio": found[AUCTION]["ratio"], "met": found[AUCTION]["ratio"] >= GOAL_PLAIN}
            for slots, found in levels.items()
        },
        "same_tokens": not any(
            one.get("differing") for found in levels.values() for one in found.values()
        )
        and not any(one["differing"] for one in batch.values()),
    }  # fmt: skip


# --- printing -----------------------------------------------------------------------------


def print_batch(batch: dict[str, Any]) -> None:
    """A table of the first question."""
    table = Table(box=None, pad_edge=False, title="8 in a batch by 8 one after another")
    for name in ("method", "x", "95%", "whole x", "tokens/s"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for label, one in batch.items():
        table.add_row(
            label, f"{one['ratio']:.2f}", bounds(one), f"{one['whole']:.2f}",
            f"{one['tokens_per_second']:.0f}",
        )  # fmt: skip
    console().print(table)


def print_levels(levels: dict[int, dict[str, Any]]) -> None:
    """Throughput by plain decoding's: arms by concurrent requests."""
    table = Table(box=None, pad_edge=False, title="throughput by plain decoding's")
    table.add_column("nodes each")
    for slots in levels:
        table.add_column(f"{slots} at once", justify="right")
    labels = [label for label in next(iter(levels.values())) if label != "auction_against_fixed"]
    for label in labels:
        cells = [found[label] for found in levels.values()]
        shown = [f"{one['ratio']:.2f} {bounds(one)} ({one['nodes']:.1f})" for one in cells]
        table.add_row(label, *shown)
    console().print(table)
    console().print("in brackets at the end: drafted nodes per request and step")


def bounds(one: dict[str, Any]) -> str:
    """An interval, a dash where there is none."""
    interval = Interval(one["ratio"], one["low"] or float("nan"), one["high"] or float("nan"))
    return f"[{interval.low:.2f}, {interval.high:.2f}]" if interval.known else "-"


def console() -> Console:
    """Wide enough where no terminal says how wide."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False)


def tell(message: str) -> None:
    """Progress on stderr."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="1 and 4 at once, two rounds")
    parser.add_argument("--levels", type=numbers, help="concurrent requests, commas between")
    parser.add_argument("--fixed", type=numbers, help="nodes of fixed trees, commas between")
    parser.add_argument("--rounds", type=int, help="rounds of each arm (default 8)")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before those (default 1)")
    parser.add_argument("--max-new-tokens", type=int, help="tokens of each answer (default 48)")
    parser.add_argument("--workload", default="code")
    parser.add_argument("--target", default=EMBEDDED_TARGET)
    parser.add_argument("--draft", default=EMBEDDED_DRAFT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--execution", default="auto", help="auto, eager or compiled")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.levels = arguments.levels or ([1, 4] if quick else list(LEVELS))
    arguments.fixed = arguments.fixed or ([2, 4] if quick else list(FIXED))
    arguments.rounds = arguments.rounds or (2 if quick else 8)
    arguments.max_new_tokens = arguments.max_new_tokens or (8 if quick else 48)
    few, usual = Extent(nodes=4, contexts=2, rounds=2), Extent(nodes=16, rounds=12)
    arguments.extent = few if quick else usual
    return arguments


def numbers(text: str) -> list[int]:
    """`1,4,8` as numbers."""
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
