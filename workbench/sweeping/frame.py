"""Cells of a sweep as data frames: one line per cell and setting, options as columns.

A column `option.NAME` holds what a cell was given for NAME: a number, a word, or nothing where the
cell leaves it at its default or its method has no such option.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from workbench import frames
from workbench.comparing import result
from workbench.comparing.arms import BASELINES
from workbench.comparing.expand import read_arm
from workbench.comparing.rows import Row, rows
from workbench.sweeping.keeping import Sweep

OPTION = "option."
#: what tells settings of one cell apart
SETTING = ("workload", "dtype", "cache", "execution")


def sweep_rows(sweep: Sweep, runs: Path | None = None) -> list[Row]:
    """A row for every measured cell in every setting, in the order of the cells."""
    order = {label: at for at, label in enumerate(sweep.spec.cells())}
    found: list[Row] = []
    for comparison_id in dict.fromkeys(sweep.cells.values()):
        comparison = result.load(comparison_id, runs)
        found += [row for row in rows(comparison) if sweep.cells.get(row.method) == comparison_id]
    found = [row for row in found if row.method in order]
    return sorted(found, key=lambda row: order[row.method])


def cell_frame(sweep: Sweep, table: Sequence[Row]) -> pd.DataFrame:
    """Columns of `frames.rows_frame`, `method`, `measured`, and one per option that is set.

    Cells that are not measured yet have lines as well, one per workload and dtype, without figures.
    """
    measured = frames.rows_frame(table)
    have = set(zip(measured["arm"], measured["workload"], strict=True)) if len(measured) else set()
    spec = sweep.spec
    missing = pd.DataFrame(
        [
            {"arm": label, "workload": workload, "dtype": dtype}
            for label, workload, dtype in product(spec.cells(), spec.workloads, spec.dtypes)
            if (label, workload) not in have and label not in BASELINES
        ]
    )
    parts = [
        part.assign(measured=at == 0) for at, part in enumerate((measured, missing)) if len(part)
    ]
    if not parts:
        return pd.DataFrame(columns=["arm", "method", "workload", "measured"])
    found = pd.concat(parts, ignore_index=True)
    read = [read_arm(arm) for arm in found["arm"]]
    names = list(dict.fromkeys(name for _, options in read for name in options))
    options = pd.DataFrame(
        {OPTION + name: [_value(options.get(name)) for _, options in read] for name in names},
        index=found.index,
        dtype=object,
    )
    return pd.concat([found.assign(method=[method for method, _ in read]), options], axis=1)


def axes(cells: pd.DataFrame) -> list[str]:
    """Names of the options that differ among these cells: what a heat map can be drawn over."""
    names = [name for name in cells.columns if name.startswith(OPTION)]
    return [name.removeprefix(OPTION) for name in names if cells[name].dropna().nunique() > 1]


def best_over_rest(cells: pd.DataFrame, along: Sequence[str], value: str) -> pd.DataFrame:
    """One line for each combination of the options `along`: its best cell by `value`.

    A combination of which nothing is measured keeps a line without figures.
    """
    columns = [OPTION + name for name in along]
    known = cells.dropna(subset=columns)
    ranked = known.sort_values(value, ascending=False, na_position="last", kind="stable")
    best = ranked.drop_duplicates(columns)
    return best.sort_values(columns, key=lambda column: column.map(_place)).reset_index(drop=True)


def _value(text: str | None) -> Any:
    if text is None:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _place(value: Any) -> tuple[int, float, str]:
    """Numbers in their order, then words."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
