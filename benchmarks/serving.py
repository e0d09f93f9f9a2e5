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
from typing import Any

from serving_bench import Arm, Bench, Times, measure
from serving_tables import print_batch, print_levels

from engine.errors import UserError
from workbench.profiling.measuring import Extent
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET
from workbench.statistics import paired_speedup

PLAIN, AUCTION = "plain", "auction"
LEVELS, FIXED = (1, 4, 8, 16), (1, 2, 3, 4, 6, 8)
BATCH = 8
#: deepest level of a fixed tree; the auction may go as deep
DEPTH = 4
GOAL_BATCH, GOAL_PLAIN = 2.0, 0.97


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
