"""What a verification rule is worth: the rules on the same draws, and whole runs beside each other.

Two tables at one temperature (0.8 unless told otherwise), held-out code, float32:

1. On the same draws. While one rule decodes, every tree it meets is also judged by traversal (on
   chains by block too), with fresh uniforms, several times each: the difference in accepted tokens
   is then the rule's alone. Rule 2 (multi-step) draws its children with replacement, rule 3
   (without-replacement) without, so each is compared on its own trees.
2. Whole runs, the protocol of `draftree compare`: rule 1 with COUPLED and with FIXED children,
   rules 2 and 3, traversal and block, and typical acceptance (lossy), tokens per step and speed.

    python benchmarks/verification.py            # about ten minutes
    python benchmarks/verification.py --quick    # two prompts, to see that it works

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.drafters.base import Sequence
from engine.engine import EngineConfig, build_engine
from engine.errors import DecodeError, UserError
from engine.records import Verdict
from engine.registry import parse_options
from engine.requests import Request
from engine.rules import Verifier
from engine.runner import TreeRunner
from engine.sampling import Sampling, warp
from engine.target import Scores
from engine.tree import TokenTree
from engine.verify import NODE_RULES, accept_or_resample
from engine.verify_paths import block, traversal
from workbench.compare import CompareSpec, compare
from workbench.comparing import wording
from workbench.comparing.expand import read_arm
from workbench.comparing.rows import rows
from workbench.conversation import conversations, questions_of
from workbench.models import Pair, load_pair
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, RunSpec

CHAIN, TREE, GROWN = (
    "speculative:length=4",
    "static-tree:expansion=3,2,1,1",
    "dynamic-tree:policy=best-first,nodes=8",
)
SHAPES = (CHAIN, TREE, GROWN)
WHOLE = (
    *(f"{TREE},children={children}" for children in ("coupled", "fixed")),
    *(f"{TREE},verify={rule}" for rule in ("multi-step", "without-replacement", "traversal")),
    *(f"{CHAIN},children={children}" for children in ("coupled", "fixed")),
    *(f"{CHAIN},verify={rule}" for rule in ("multi-step", "block")),
    f"{TREE},verify=typical",
)
#: fresh sets of uniforms by which each tree is judged
REDRAWS = 24
MOST_NODES = 64


class Judged(NamedTuple):
    """Accepted tokens of one step by rule, means over the redraws."""

    by_rule: dict[str, float]


class Judging:
    """A verifier that also asks other rules, with uniforms of their own."""

    def __init__(self, verifier: Verifier, *, chain: bool) -> None:
        self._verifier, self._chain = verifier, chain
        self._random = np.random.default_rng(0)
        self.steps: list[Judged] = []

    def verify_batch(
        self,
        trees: list[TokenTree],
        scores: list[Scores],
        sequences: list[Sequence],
        runner: TreeRunner,
    ) -> list[Verdict]:
        """The verifier's own verdicts; what the others say is kept in `steps`."""
        for tree, seen in zip(trees, scores, strict=True):
            if tree.num_drafted:
                self.steps.append(self._judge(tree, seen))
        return self._verifier.verify_batch(trees, scores, sequences, runner)

    def _judge(self, tree: TokenTree, scores: Scores) -> Judged:
        known: dict[int, np.ndarray] = {}

        def probs(node: int) -> np.ndarray:
            if node not in known:
                known[node] = np.exp(warp(scores.logits_NV[node], self._verifier.sampling))
            return known[node]

        own = self._verifier.rule
        rules = {
            own: partial(accept_or_resample, tree, NODE_RULES[own], probs),
            "traversal": partial(traversal, tree, probs, with_replacement=own == "multi-step"),
        }
        if self._chain:
            rules["block"] = partial(block, tree, probs)
        return Judged({name: self._mean(rule) for name, rule in rules.items()})

    def _mean(self, rule: Any) -> float:
        accepted = []
        for _ in range(REDRAWS):
            accepting, emitting = self._random.random((2, MOST_NODES))
            accepted.append(rule(accepting.__getitem__, emitting.__getitem__))
        return float(np.mean([verdict.num_accepted for verdict in accepted]))


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    try:
        same = same_draws(arguments)
        print_same(same)
        whole = whole_runs(arguments)
    except (UserError, DecodeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(json.dumps({"benchmark": "verification", "same_draws": same, "whole_runs": whole}))
    return 0


def same_draws(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every shape under rules 2 and 3, with the others beside them."""
    spec = RunSpec(
        target=arguments.target, draft=arguments.draft, workload=arguments.workload,
        limit=arguments.limit, max_new_tokens=arguments.max_new_tokens, threads=arguments.threads,
    )  # fmt: skip
    pair = load_pair(spec, on_progress=lambda message, fraction: None)
    talks = conversations(questions_of(spec), tokenizer=pair.target.tokenizer, spec=spec)
    requests = [talk.next_request() for talk in talks]
    found = []
    for shape in SHAPES:
        for rule in NODE_RULES if shape != CHAIN else ("multi-step",):  # on chains they are one
            print(f"same draws: {shape}, {rule}", file=sys.stderr, flush=True)
            found += decode(arguments, pair, requests, shape=shape, rule=rule)
    return found


def decode(
    arguments: argparse.Namespace, pair: Pair, requests: list[Request], *, shape: str, rule: str
) -> list[dict[str, Any]]:
    """All requests by one shape and rule: a row for each other rule, paired by step."""
    method, options = read_arm(shape)
    sampling = Sampling(temperature=arguments.temperature, seed=arguments.seed)
    config = EngineConfig(
        method=method, options=parse_options(method, options), sampling=sampling, verify=rule,
        ignore_eos=True, capacity=pair.target.context_length, execution=arguments.execution,
    )  # fmt: skip
    engine = build_engine(config, target=pair.target, draft=pair.draft)
    judging = Judging(Verifier(rule, sampling), chain=shape == CHAIN)
    engine.verifier = judging  # type: ignore[assignment]
    for request in requests:
        engine.add(request)
        while not engine.step().finished:
            pass
    own = np.array([step.by_rule[rule] for step in judging.steps])
    rows = []
    for other in judging.steps[0].by_rule:
        if other == rule:
            continue
        gain = np.array([step.by_rule[other] for step in judging.steps]) - own
        error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
        rows.append({
            "shape": shape, "rule": rule, "steps": len(own), "accepted": float(own.mean()),
            "other": other, "other_accepted": float((own + gain).mean()),
            "gain": float(gain.mean()), "error": error,
        })  # fmt: skip
    return rows


def print_same(found: list[dict[str, Any]]) -> None:
    """Tokens per step of a rule and of another on the same trees."""
    table = Table(box=None, pad_edge=False, title="On the same draws", title_justify="left")
    for name in ("shape", "rule", "tokens per step", "other rule", "tokens per step", "gain", "+-"):
        table.add_column(
            name, justify="left" if name in ("shape", "rule", "other rule") else "right"
        )
    for row in found:
        table.add_row(
            row["shape"], row["rule"], f"{1 + row['accepted']:.3f}", row["other"],
            f"{1 + row['other_accepted']:.3f}", f"{row['gain']:+.3f}", f"{1.96 * row['error']:.3f}",
        )  # fmt: skip
    console().print(table)


def whole_runs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rules as arms of a comparison."""
    spec = CompareSpec(
        methods=list(WHOLE), baselines=[], workloads=[arguments.workload], limit=arguments.limit,
        repeats=1, max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature,
        seed=arguments.seed, target=arguments.target, draft=arguments.draft,
        executions=[arguments.execution], threads=arguments.threads,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="draftree-verification-") as scratch:
        table = rows(compare(spec, lambda event: None, runs=Path(scratch)))
    shown = Table(box=None, pad_edge=False, title="Whole runs", title_justify="left")
    for name in ("method", "tokens per step", "x plain", "95%", "lossless"):
        shown.add_column(name, justify="left" if name == "method" else "right")
    for row in table:
        shown.add_row(
            row.method, f"{row.tokens_per_step:.2f}", f"{row.speedup.value:.2f}",
            wording.bounds(row.speedup), wording.lossless(row),
        )  # fmt: skip
    console().print(shown)
    return [
        {
            "method": row.method, "tokens_per_step": row.tokens_per_step, "lossy": row.lossy,
            "speedup": row.speedup.value, "low": row.speedup.low, "high": row.speedup.high,
        }
        for row in table
    ]  # fmt: skip


def console() -> Console:
    """Wide where the output is kept."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two prompts, 32 tokens")
    parser.add_argument("--workload", default="code")
    parser.add_argument("--limit", type=int, help="prompts (default 8)")
    parser.add_argument("--max-new-tokens", type=int, help="per prompt (default 128)")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default=EMBEDDED_TARGET)
    parser.add_argument("--draft", default=EMBEDDED_DRAFT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--execution", default="auto", help="auto, eager or compiled")
    arguments = parser.parse_args()
    arguments.limit = arguments.limit or (2 if arguments.quick else 8)
    arguments.max_new_tokens = arguments.max_new_tokens or (32 if arguments.quick else 128)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
