"""Which tree for a given number of nodes? All policies at equal budgets: tokens, regret, speed.

Measured: greedy float32 decoding of held-out code with trees of 8, 16, 32 and 64 drafted nodes,
every policy with the same deepest level and the same number of children per node, all arms in
alternation in one run (the protocol of `draftree compare`). The Sequoia-optimal tree is made for
the acceptance by rank on another workload than the one measured. Regret is what the best tree in
hindsight would have brought beyond (docs/measuring.md), exact, from the draft's rank of every true
token. `auto` gets the budget as its upper bound and takes fewer nodes where more do not pay.

    python benchmarks/policies.py            # about fifteen minutes
    python benchmarks/policies.py --quick    # small budgets, a prompt, to see that it works

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.errors import DecodeError, UserError
from workbench.compare import CompareSpec, Comparison, compare
from workbench.comparing.arms import PLAIN
from workbench.comparing.rows import Row, rows
from workbench.job import execute
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, RunSpec
from workbench.store import open_run
from workbench.whatif.complete import complete, ranks_of
from workbench.whatif.oracle import oracle
from workbench.whatif.ranks import RunRanks

#: deepest level and children per node by budget
BOUNDS = {8: (4, 4), 16: (5, 4), 32: (6, 6), 64: (8, 8)}
POLICIES = ("eagle2", "opt-tree", "best-first", "grow-and-prune", "auto")
SEQUOIA = "sequoia-optimal"
RANKS = 16


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="draftree-policies-") as scratch:
        runs = Path(scratch)
        try:
            acceptance = acceptance_by_rank(arguments, runs)
            arms = arms_by_label(arguments.budgets, acceptance)
            found = compare(spec_from(arguments, list(arms)), tell, runs=runs)
            measured = with_regret(found, arms, runs)
        except (UserError, DecodeError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2 if isinstance(error, UserError) else 1
    print_tables(measured, arguments.budgets)
    print(json.dumps({"benchmark": "policies", "acceptance": acceptance, "rows": measured}))
    return 0


def acceptance_by_rank(arguments: argparse.Namespace, runs: Path) -> list[float]:
    """How often the true token has the draft's rank 0, 1, ... on another workload."""
    spec = RunSpec(
        method=PLAIN, target=arguments.target, draft=None, workload=arguments.calibrate_on,
        limit=arguments.limit, max_new_tokens=arguments.max_new_tokens, threads=arguments.threads,
        execution="eager",
    )  # fmt: skip
    finished = execute(spec, lambda event: None, lambda: False, runs=runs)
    ranks = all_ranks(finished.run_id, arguments.draft, runs)
    counts = Counter(int(rank) for request in ranks.requests for rank in request.rank_L)
    return [round(counts[rank] / ranks.num_tokens, 4) for rank in range(RANKS)]


def all_ranks(run_id: str, draft: str, runs: Path) -> RunRanks:
    """The draft's rank of every token of a run."""
    complete(run_id, draft=draft, folder=runs)
    return ranks_of(run_id, draft=draft, folder=runs)


def arms_by_label(budgets: list[int], acceptance: list[float]) -> dict[str, tuple[str, int]]:
    """Policy and budget by the arm that stands for them."""
    vector = ",".join(map(str, acceptance))
    arms = {}
    for nodes in budgets:
        depth, top_k = BOUNDS[nodes]
        sequoia = f"static-tree:acceptance={vector},nodes={nodes},max_depth={depth}"
        arms[sequoia] = (SEQUOIA, nodes)
        for policy in POLICIES:
            size = "most" if policy == "auto" else "nodes"
            options = f"policy={policy},{size}={nodes},depth={depth},top_k={top_k},rounds={depth}"
            arms[f"dynamic-tree:{options}"] = (policy, nodes)
    return arms


def spec_from(arguments: argparse.Namespace, methods: list[str]) -> CompareSpec:
    """The comparison to make."""
    return CompareSpec(
        methods=methods,
        baselines=[],
        workloads=[arguments.workload],
        limit=arguments.limit,
        repeats=arguments.repeats,
        max_new_tokens=arguments.max_new_tokens,
        target=arguments.target,
        draft=arguments.draft,
        executions=[arguments.execution],
        threads=arguments.threads,
    )


def with_regret(
    found: Comparison, arms: dict[str, tuple[str, int]], runs: Path
) -> list[dict[str, Any]]:
    """A row for every arm, plain decoding first."""
    plain = next(arm for arm in found.arms if arm.method == PLAIN)
    ranks = all_ranks(plain.run_id, found.spec.draft or "", runs)
    measured = []
    for row in rows(found):
        policy, nodes = arms.get(row.method, (PLAIN, 0))
        with open_run(row.run_id, runs) as reader:
            best = oracle(reader, ranks) if nodes else None
        if best is not None:
            assert best.exact, "every rank is known"
        measured.append(as_json(row, policy, nodes) | {"regret": best and best.regret[0]})
    return measured


def as_json(row: Row, policy: str, nodes: int) -> dict[str, Any]:
    """The figures of one arm."""
    speedup = row.speedup
    return {
        "policy": policy, "budget": nodes, "nodes": row.nodes_per_step - 1,
        "tokens_per_step": row.tokens_per_step, "speedup": speedup.value,
        "low": speedup.low, "high": speedup.high,
        "lossless": row.matched_requests == row.requests,
    }  # fmt: skip


def print_tables(measured: list[dict[str, Any]], budgets: list[int]) -> None:
    """Policies by budgets: tokens per step, regret, speedup, nodes really drafted."""
    cells = {(row["policy"], row["budget"]): row for row in measured}
    figures = {
        "tokens per step": lambda row: f"{row['tokens_per_step']:.2f}",
        "regret, tokens per step": lambda row: f"{row['regret']:.2f}",
        "x plain decoding": lambda row: (
            f"{row['speedup']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        ),
        "nodes drafted": lambda row: f"{row['nodes']:.1f}",
    }
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for title, say in figures.items():
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        table.add_column("policy")
        for budget in budgets:
            table.add_column(f"{budget} nodes", justify="right")
        for policy in (SEQUOIA, *POLICIES):
            table.add_row(policy, *(say(cells[policy, budget]) for budget in budgets))
        console.print(table)
        console.print()
    lost = [row for row in measured if not row["lossless"]]
    console.print("Every output equals plain decoding's." if not lost else f"NOT equal: {lost}")


_phase = [""]


def tell(event: Any) -> None:
    """Progress on stderr, a line for each phase and each tenth of the measuring."""
    fraction = getattr(event, "fraction", None)
    if hasattr(event, "phase"):
        tenth = f" {10 * int(10 * (fraction or 0))}%" if event.phase == "measure" else ""
        if event.phase + tenth != _phase[0]:
            _phase[0] = event.phase + tenth
            print(f"{event.phase}{tenth}: {event.message}", file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="8 and 16 nodes, one prompt")
    parser.add_argument("--workload", default="code")
    parser.add_argument("--calibrate-on", default="docstring", help="for the Sequoia-optimal tree")
    parser.add_argument("--limit", type=int, help="prompts (default 4)")
    parser.add_argument("--repeats", type=int, help="times each prompt is decoded (default 2)")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--target", default=EMBEDDED_TARGET)
    parser.add_argument("--draft", default=EMBEDDED_DRAFT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--execution", default="auto", help="auto, eager or compiled")
    arguments = parser.parse_args()
    arguments.budgets = [8, 16] if arguments.quick else list(BOUNDS)
    arguments.limit = arguments.limit or (1 if arguments.quick else 4)
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 2)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
