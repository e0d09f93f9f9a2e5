"""`draftree query`: SQL over stored runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.query import Result


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; `-` reads it from standard input.")] = "",
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", "-r", help="Only this run: an id, its beginning, last. Repeatable."),
    ] = None,
    newest: Annotated[
        int, typer.Option("--newest", "-n", help="Else the newest so many.", min=1, max=500)
    ] = 50,
    form: Annotated[str, typer.Option("--format", "-f", help="table, csv or json.")] = "table",
    rows: Annotated[int, typer.Option(help="Most rows.", min=1, max=1_000_000)] = 1_000,
    seconds: Annotated[float, typer.Option(help="Most time.", min=0.1, max=3600)] = 60.0,
    tables: Annotated[bool, typer.Option("--tables", help="Show tables and columns.")] = False,
    examples: Annotated[
        bool, typer.Option("--examples", help="Show queries to begin with.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Ask stored runs a question in SQL. Nothing is changed, and no other file is touched.

    Examples:

        draftree query "SELECT arm, tokens_per_step FROM run ORDER BY ALL"

        draftree query --run last "SELECT depth, count(*) FROM node GROUP BY ALL ORDER BY ALL"

        draftree query --examples
    """
    from engine.errors import UserError
    from workbench.query import EXAMPLES, Limits, ask, queryable
    from workbench.query.output import to_csv, to_json
    from workbench.store.index import resolve_run
    from workbench.terminal import out, print_json, say

    if tables:
        out().print(_tables())
        return
    if examples:
        for example in EXAMPLES:
            out().print(f"-- {example.name}: {example.question}\n{example.sql};\n")
        return
    form = "json" if as_json else form
    if form not in ("table", "csv", "json"):
        raise UserError(f"Format {form!r} is unknown; use table, csv or json.")
    sql = sys.stdin.read() if sql == "-" else sql
    if not sql.strip():
        raise UserError("The query is empty; `draftree query --examples` shows some.")
    available = queryable(newest)
    chosen = [resolve_run(name) for name in runs] if runs else available.run_ids
    result = ask(sql, list(dict.fromkeys(chosen)), limits=Limits(rows=rows, seconds=seconds))
    if form == "json":
        print_json(to_json(result))
    elif form == "csv":
        sys.stdout.write(to_csv(result))
    else:
        out().print(_table(result))
    for run_id, why in result.left_out:
        say(f"Left out: run {run_id}, {why}.")
    if not runs and available.num_stored > len(chosen):
        say(f"Of the newest {len(chosen)} runs of {available.num_stored}; --newest takes more.")
    if not result.complete:
        say(f"These are the first {len(result.rows)} rows; --rows shows more.")


def _table(result: Result) -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from workbench.query.output import cell, is_number

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for name, kind in zip(result.columns, result.types, strict=True):
        table.add_column(Text(cell(name)), justify="right" if is_number(kind) else "left")
    for row in result.rows:
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def _tables() -> object:
    from rich import box
    from rich.table import Table

    from workbench.query import columns
    from workbench.query.tables import NAMES
    from workbench.store.meanings import TABLE_MEANINGS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("table", "column", "type", "meaning"):
        table.add_column(heading)
    for name in NAMES:
        table.add_row(name, "", "", TABLE_MEANINGS[name], style="bold")
        for column in columns(name):
            table.add_row("", column.name, column.type, column.meaning)
    return table
