"""Reports as files: HTML, or Markdown where the name ends in .md."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UserError
from workbench.comparing import result
from workbench.comparing.result import Comparison
from workbench.report.content import Report
from workbench.report.from_comparison import report_on_comparison
from workbench.report.from_runs import report_on_runs
from workbench.report.from_sweep import report_on_sweep
from workbench.report.render import to_html, to_markdown
from workbench.sweeping.keeping import load_sweep, sweep_names

_MARKDOWN = (".md", ".markdown")


def write_comparison_report(
    comparison: Comparison, file: Path, *, runs: Path | None = None
) -> Path:
    """Write a report on a comparison. Raises UserError where it cannot be written."""
    return write(report_on_comparison(comparison, runs), file)


def write_report(wanted: Sequence[str], file: Path, *, runs: Path | None = None) -> Path:
    """Write a report on stored runs, one comparison (by id), or one sweep (by name).

    Raises:
        UserError: nothing of that name, runs and comparisons mixed, or a file that cannot be
            written.
    """
    check_writable(file)
    return write(gather(wanted, runs), file)


def gather(wanted: Sequence[str], runs: Path | None = None) -> Report:
    """What a report on these runs, this comparison or this sweep says. Raises UserError."""
    comparisons = [name for name in wanted if result.is_comparison(name)]
    sweeps = [name for name in wanted if name in sweep_names(runs)]
    if not comparisons and not sweeps:
        return report_on_runs(wanted, runs)
    if len(wanted) > 1:
        raise UserError(
            "A report is on one comparison, on one sweep, or on runs; give one comparison or sweep "
            "alone."
        )
    if sweeps:
        return report_on_sweep(load_sweep(sweeps[0], runs), runs)
    return report_on_comparison(result.load(comparisons[0], runs), runs)


def write(report: Report, file: Path) -> Path:
    """Write a report, whole or not at all. Raises UserError."""
    text = to_markdown(report) if file.suffix.lower() in _MARKDOWN else to_html(report)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise UserError(f"The report cannot be written to {file}: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return file


def check_writable(file: Path) -> None:
    """Raise UserError if no file can be written there, before anything long is begun."""
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file, report.html for one.")
    if not file.parent.is_dir():
        raise UserError(f"The folder {file.parent} does not exist; make it, or choose another.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"{file} cannot be written; choose another place.")
