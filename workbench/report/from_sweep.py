"""A report on a sweep: its best setting, heat maps over two options, all cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from engine.errors import UserError
from workbench.comparing import result, wording
from workbench.comparing.arms import BASELINES, PLAIN
from workbench.comparing.rows import Row
from workbench.comparing.table import settings
from workbench.figures.sweeps import heat_map, sweep_lines
from workbench.report import surroundings
from workbench.report.again import compare_command
from workbench.report.content import Chart, Draw, Report
from workbench.report.from_comparison import TONES, arms_table, when
from workbench.sweeping.frame import OPTION, axes, best_over_rest, cell_frame, sweep_rows
from workbench.sweeping.keeping import Sweep
from workbench.sweeping.reading import VALUES, best_cell, explained, verdict
from workbench.view.theme import ThemeName

_DRAWN = ("speedup", "acceptance_rate")


def report_on_sweep(sweep: Sweep, runs: Path | None = None) -> Report:
    """Everything a report says of the cells that are measured. Raises UserError if none is."""
    table = sweep_rows(sweep, runs)
    if not table:
        raise UserError(
            f"Sweep {sweep.spec.name} has no measured cell yet; `draftree sweep` goes on with it."
        )
    best = wording.best(table)
    first = result.load(sweep.cells[table[0].method], runs)
    return Report(
        title=f"Sweep {sweep.spec.name}",
        made=f"{len(sweep.spec.cells())} cells, {when(sweep.started)}",
        verdict=verdict(table),
        tone=TONES[best.finding] if best else "open",
        facts=_facts(best, table),
        warnings=_warnings(sweep),
        about=[
            ("Environment", surroundings.environment(first.environment)),
            ("Models", surroundings.models(first.environment)),
            ("Workload", surroundings.workloads(first)),
            ("Protocol", surroundings.protocol(first)),
        ],
        tables=[arms_table(heading, part) for heading, part in settings(table)],
        charts=list(_charts(cell_frame(sweep, table))),
        lossless=f"{wording.lossless_summary(table)}.".capitalize(),
        notes=sweep.notes,
        commands=[
            f"draftree sweep {sweep.spec.name}.json",
            compare_command(sweep.spec.part(sweep.spec.methods)),
        ],
    )


def _charts(cells: pd.DataFrame) -> Iterator[Chart]:
    """For each method on each workload: maps over its first two options, or lines over its one."""
    cells = cells[~cells["method"].isin([PLAIN, *BASELINES])]
    for (method, workload, dtype), own in cells.groupby(
        ["method", "workload", "dtype"], sort=False
    ):
        along = axes(own)[:2]
        if not along or own["speedup"].isna().all():
            continue
        for value in _DRAWN:
            best = best_over_rest(own, along, value)
            yield Chart(
                f"{VALUES[value]} of {method} on {workload} in {dtype}",
                _read(best, value, str(method), along, rest=axes(own)[2:]),
                _draw(best, value, [OPTION + name for name in along]),
                wide=True,
            )


def _draw(best: pd.DataFrame, value: str, columns: Sequence[str]) -> Draw:
    def draw(theme: ThemeName) -> go.Figure:
        if len(columns) == 1:
            lines = best.assign(line=VALUES[value])
            return sweep_lines(lines, x=columns[0], by="line", value=value, theme=theme)
        return heat_map(best, x=columns[0], y=columns[1], value=value, theme=theme)

    return draw


def _read(
    best: pd.DataFrame, value: str, method: str, along: Sequence[str], *, rest: Sequence[str]
) -> str:
    parts = [best_cell(best, value)]
    if rest:
        parts.append(f"Each cell shows the best over {', '.join(rest)}.")
    if said := explained(method, along):
        parts.append(f"{said[0].upper()}{said[1:]}.")
    return " ".join(parts)


def _facts(best: Row | None, table: Sequence[Row]) -> list[str]:
    facts = [wording.reason(best)] if best else []
    if sum(map(wording.is_method, table)) > 1:
        facts.append("the best of many looks a little better than it is: measure it again alone")
    return [fact for fact in [*facts, wording.lossless_summary(table)] if fact]


def _warnings(sweep: Sweep) -> list[str]:
    left = [f"{len(sweep.left)} of {len(sweep.spec.cells())} cells are not measured yet."]
    failed = [f"{label} was not measured: {reason}" for label, reason in sweep.failed.items()]
    return (left if sweep.left else []) + failed
