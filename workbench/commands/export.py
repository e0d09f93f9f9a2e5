"""`draftree export`: a run's tables for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or last.")],
    form: Annotated[str, typer.Option("--format", "-f", help="parquet, csv or json.")] = "parquet",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder. [default: draftree-RUN]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a run's tables into a folder, one file each.

    Tables: run, request, step, node (every node of every tree), token, piece (tokens as text).
    """
    from workbench.store.export import export_run
    from workbench.store.reader import open_run
    from workbench.terminal import print_json, say

    with open_run(run) as reader:
        folder = out or Path(f"draftree-{reader.run_id}")
        files = export_run(reader, folder, form=form)
    if as_json:
        print_json({"run_id": reader.run_id, "files": [str(file) for file in files]})
        return
    for file in files:
        print(file)  # noqa: T201 - the command's output
    say(f"{len(files)} files written.")
