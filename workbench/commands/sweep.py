"""`draftree sweep`: many options at once, cell by cell, to be stopped and gone on with."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import JsonFlag

if TYPE_CHECKING:
    from workbench.comparing.rows import Row
    from workbench.sweeping.keeping import Sweep


def sweep(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML or JSON file that describes the sweep.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure all cells again, also those that are done.")
    ] = False,
    as_json: JsonFlag = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a file to begin with, and end.")
    ] = False,
) -> None:
    """Measure every combination of options that are lists, each against plain decoding.

    The file names methods with lists in brackets: `dynamic-tree:nodes=[4,6,8],depth=[3,4]` is six
    cells. Each is measured in alternation with plain decoding on the same prompts. Ctrl-C keeps the
    cells that are done; the same command goes on with the others. Cells can be added to the file
    later. The Compare page shows sweeps as heat maps, and so does `draftree report NAME`.

    Examples:

        draftree sweep --example > tree-size.toml

        draftree sweep tree-size.toml
    """
    if example:
        from workbench.sweeping.spec import EXAMPLE

        typer.echo(EXAMPLE, nl=False)
        return
    if file is None:
        raise UserError(
            "Name the file that describes the sweep; `draftree sweep --example` prints one to "
            "begin with."
        )
    raise typer.Exit(_sweep_and_print(file, fresh=fresh, as_json=as_json))


def _sweep_and_print(file: Path, *, fresh: bool, as_json: bool) -> int:
    from workbench.commands.progress import progress
    from workbench.commands.runner import CANCELLED_CODE, on_interrupt
    from workbench.sweeping.keeping import saved_before
    from workbench.sweeping.run import sweep as measure
    from workbench.sweeping.spec import read_sweep
    from workbench.terminal import say

    spec = read_sweep(file)
    done = 0 if fresh else saved_before(spec)
    if done:
        say(f"{done} of {len(spec.cells())} cells are measured already.")
    stop = threading.Event()
    with on_interrupt(stop), progress() as take:
        found = measure(spec, take, stop.is_set, fresh=fresh)
    _show(found, as_json=as_json)
    if found.status == "cancelled":
        say(f"Stopped; {len(found.left)} cells are left. The same command goes on with them.")
        return CANCELLED_CODE
    return 1 if found.failed else 0


def _show(found: Sweep, *, as_json: bool) -> None:
    from workbench.sweeping.frame import sweep_rows
    from workbench.terminal import out, print_json
    from workbench.view.visible import safe_text

    table = sweep_rows(found)
    if as_json:
        print_json(as_object(found, table))
        return
    if table:
        out().print(_table(table))
    for line in closing(found, table):
        out().print(safe_text(line))


def closing(found: Sweep, table: list[Row]) -> list[str]:
    """What stands below the table: the verdict and what to make of it, failures, notes."""
    from workbench.comparing import wording
    from workbench.sweeping import reading

    lines = [reading.verdict(table), f"Losslessness: {wording.lossless_summary(table)}."]
    best = wording.best(table)
    cells = sum(map(wording.is_method, table))
    if best is not None and cells > 1:
        lines.append(
            f"The best of {cells} looks a little better than it is: measure it again with "
            f'`draftree compare --methods "{best.method}"`.'
        )
    lines += [f"{label} was not measured: {reason}" for label, reason in found.failed.items()]
    return [*(lines if table else lines[2:]), *found.notes]


def as_object(found: Sweep, table: list[Row]) -> dict[str, Any]:
    """What `draftree sweep --json` prints."""
    from workbench.comparing.expand import read_arm
    from workbench.sweeping import reading

    return {
        "sweep": found.spec.name,
        "status": found.status,
        "verdict": reading.verdict(table) if table else "",
        "cells": [
            row.as_json()
            | {"options": read_arm(row.method)[1], "comparison": found.cells[row.method]}
            for row in table
        ],
        "left": found.left,
        "failed": found.failed,
        "notes": found.notes,
    }


def _table(table: list[Row]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from workbench.comparing import wording
    from workbench.view.visible import safe_text

    best = wording.best(table)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("cell", overflow="fold")
    shown.add_column("workload", overflow="fold")
    for name in ("speedup", "95%", "tokens/step", "nodes", "lossless"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table:
        style = "bold" if row is best else ""
        shown.add_row(
            Text(safe_text(row.method), style=style),
            Text(safe_text(row.workload)),
            Text(wording.ratio(row.speedup.value), style=style),
            wording.bounds(row.speedup),
            f"{row.tokens_per_step:.2f}",
            f"{row.nodes_per_step:.1f}",
            wording.lossless(row),
        )
    return shown
