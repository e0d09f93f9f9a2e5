"""`draftree runs`: the stored runs, from their index alone."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.store.index import RunEntry

#: columns of a terminal from which more of a run is shown
_WIDTH_WITH_START = 96
_WIDTH_WITH_SOURCE = 118
_STATUS_STYLES = {
    "finished": "green",
    "running": "bold blue",
    "cancelled": "yellow",
    "failed": "red",
    "interrupted": "red",
}


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", help="Newest so many.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the stored runs, newest first.

    Wherever a RUN is asked for, `last` and the beginning of an id will do.
    """
    from engine.paths import runs_folder
    from workbench.store.index import list_runs
    from workbench.terminal import out, print_json, say

    found = list_runs(limit=limit)
    if as_json:
        print_json({"folder": str(runs_folder()), "runs": [asdict(entry) for entry in found]})
    elif not found:
        say(f'No runs in {runs_folder()} yet. Make one: draftree run --prompt "def main("')
    else:
        out().print(_table(found, out().width))


def _table(found: list[RunEntry], width: int) -> object:
    """As many columns as fit: ids and figures first, then the start, then what was decoded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from workbench.terminal import one_line

    with_start, with_source = width >= _WIDTH_WITH_START, width >= _WIDTH_WITH_SOURCE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ["run", "status", "method"]
    headings += ["started"] if with_start else []
    headings += ["prompt or workload"] if with_source else []
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for heading in ("tok/s", "tok/step", "accepted"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in found:
        summary = entry.summary
        has_steps = bool(summary.get("steps"))
        source = entry.spec.get("workload") or entry.spec.get("prompt") or ""
        cells: list[str | Text] = [
            entry.run_id,
            Text(entry.status, style=_STATUS_STYLES[entry.status]),
            Text(one_line(str(entry.spec.get("arm") or entry.method), 14)),
        ]
        cells += [_local(entry.started)] if with_start else []
        cells += [Text(one_line(source, width - _WIDTH_WITH_SOURCE + 18))] if with_source else []
        cells += [
            f"{summary['tokens_per_second']:.1f}" if has_steps else "-",
            f"{summary['tokens_per_step']:.2f}" if has_steps else "-",
            f"{summary['acceptance_rate']:.0%}" if summary.get("drafted") else "-",
        ]
        table.add_row(*cells)
    return table


def _local(started: str) -> str:
    try:
        return f"{datetime.fromisoformat(started).astimezone():%d %b %H:%M}"
    except ValueError:
        return "-"
