"""Tables of benchmarks/methods.py: speed, stages, waterfalls, what was trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from training_costs import Cost

from workbench.compare import Comparison
from workbench.comparing import wording
from workbench.comparing.arms import HF_ASSISTED, HF_GENERATE, PLAIN
from workbench.comparing.rows import Row
from workbench.statistics import Interval, paired_speedup

#: stages that are overhead: neither the draft's nor the target's work
OVERHEAD = ("verify", "commit", "record", "unaccounted")


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
            _times(row, named(table, HF_GENERATE)),
            _times(row, named(table, HF_ASSISTED)),
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


def print_waterfalls(table: Sequence[Row]) -> None:
    """Why a method is as fast as it is: what each stage leaves of its tokens per step."""
    shown = Table(box=None, pad_edge=False, title="waterfall, x plain", title_justify="left")
    shown.add_column("method")
    for name in ("tokens per step", "less scoring", "less drafting", "less the rest: measured"):
        shown.add_column(name, justify="right")
    for row in table:
        if row.waterfall and row.drafts:
            shown.add_row(row.method, *(f"{value:.2f}" for value in row.waterfall))
    _console().print()
    _console().print(shown)


def print_costs(trained: Mapping[str, Cost]) -> None:
    """What methods cost to train besides the target; those that are not named: nothing."""
    shown = Table(box=None, pad_edge=False, title="trained for", title_justify="left")
    for name, justify in (("method", "left"), ("part", "left"), ("minutes", "right"),
                          ("tokens read", "right"), ("written first", "right")):  # fmt: skip
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    for method, cost in trained.items():
        minutes = wording.DASH if cost.minutes is None else f"{cost.minutes:.0f}"
        counts = (wording.DASH if n is None else f"{n:,}" for n in (cost.tokens, cost.written))
        shown.add_row(method, cost.part, minutes, *counts)
    if trained:
        _console().print()
        _console().print(shown)


def overhead(row: Row) -> float:
    """Verify, commit, record and unaccounted, as a share of a step."""
    total = sum(row.stages_ns.values())
    return sum(row.stages_ns[stage] for stage in OVERHEAD) / total if total else 0.0


def against(row: Row, baseline: Row) -> Interval:
    """How many times faster than another arm, over the prompts both decoded."""
    theirs = {prompt.request: prompt.decode_ms for prompt in baseline.prompts}
    pairs = [(theirs[p.request], p.decode_ms) for p in row.prompts if p.request in theirs]
    return paired_speedup([base for base, _ in pairs], [own for _, own in pairs])


def named(table: Sequence[Row], name: str) -> Row | None:
    return next((row for row in table if row.method.partition(":")[0] == name), None)


def _times(row: Row, baseline: Row | None) -> str:
    return f"{against(row, baseline).value:.2f}" if baseline else wording.DASH


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 180, highlight=False)
