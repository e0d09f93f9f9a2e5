"""Tables of benchmarks/serving.py."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench.statistics import Interval


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
