"""A run's figures as a compact table for the terminal."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from workbench import metrics
from workbench.events import RunSummary

_BAR = 40
_STAGE_STYLES = {
    "draft": "yellow",
    "build": "magenta",
    "score": "blue",
    "verify": "cyan",
    "commit": "green",
    "record": "white",
    "unaccounted": "bright_black",
}
#: letters so that the bar reads without colour
_STAGE_LETTERS = {
    "draft": "d",
    "build": "b",
    "score": "s",
    "verify": "v",
    "commit": "c",
    "record": "r",
    "unaccounted": "u",
}


def figures(summary: RunSummary, *, plain_step_ns: int | None, mode: str | None) -> RenderableType:
    """The lead figures, and how a step's time divides over its stages."""
    table = Table.grid(padding=(0, 3))
    rows = [
        ("tokens per second", f"{summary.tokens_per_second:.1f}"),
        ("tokens per step", f"{summary.tokens_per_step:.2f}"),
        ("acceptance rate", f"{summary.acceptance_rate:.1%}" if summary.drafted else "-"),
        ("against plain", _estimate(summary, plain_step_ns)),
        ("tokens", f"{summary.kept} in {summary.decode_ns / 1e9:.2f} s"),
        ("prefill", f"{summary.prefill_ns / 1e6:.0f} ms"),
        ("repetition", f"{summary.repetition:.1%}"),
        ("execution", mode or "-"),
    ]
    if known := metrics.forecast(summary):
        rows.append(("predicted", f"{known.predicted:.0f} tokens/s, measured {known.measured:.0f}"))
    half = (len(rows) + 1) // 2
    for left, right in zip_longest(rows[:half], rows[half:], fillvalue=("", "")):
        table.add_row(Text(left[0], style="dim"), left[1], Text(right[0], style="dim"), right[1])
    return Group(table, stage_bar(summary)) if summary.passes else table


def _estimate(summary: RunSummary, plain_step_ns: int | None) -> str:
    speedup = metrics.live_speedup(summary, plain_step_ns)
    return "-" if speedup is None else f"{speedup:.2f}x (estimate)"


def stage_bar(summary: RunSummary) -> Text:
    """One bar whose parts are the stages of a mean step, with their milliseconds."""
    shares = metrics.stage_shares(summary)
    bar, legend = Text(), Text()
    for stage, share in shares.items():
        bar.append(_STAGE_LETTERS[stage] * round(share * _BAR), style=_STAGE_STYLES[stage])
        if summary.stages_ns.get(stage):
            milliseconds = summary.stages_ns[stage] / summary.passes / 1e6
            legend.append(f"  {stage} {milliseconds:.2f}", style=_STAGE_STYLES[stage])
    return bar + legend + Text(f"  = {metrics.step_ns(summary) / 1e6:.2f} ms a step", style="dim")
