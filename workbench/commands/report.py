"""`draftree report`: stored runs or a comparison as one file to hand around."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs (an id, its beginning, last), one comparison's id, or one sweep's name."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write: .html, or .md for Markdown.")
    ] = Path("report.html"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a report as one HTML file that needs no network, or as Markdown.

    Examples:

        draftree report last --out run.html

        draftree report compare-20260101-120000-1a2b --out comparison.html

        draftree report early-exit --out sweep.html
    """
    from workbench.report.files import write_report
    from workbench.terminal import print_json, say

    file = write_report(runs, out)
    if as_json:
        print_json({"report": str(file.resolve()), "bytes": file.stat().st_size})
    else:
        say(f"Report: {file}")
