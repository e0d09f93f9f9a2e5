"""A query's rows as the page shows them: a data frame, and which columns make a chart."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from workbench.query import Result
from workbench.query.output import cell, is_number


class Axes(NamedTuple):
    """Columns that may stand along, up, and for groups; the first of each is the natural one."""

    x: list[str]
    y: list[str]
    by: list[str]


def result_frame(result: Result) -> pd.DataFrame:
    """Numbers as numbers, all else as text that is safe to show. Columns of one name get a digit.

    Times and nested values become text as well: what the browser makes of them differs from SQL.
    """
    frame = pd.DataFrame(result.rows, columns=_distinct(result.columns), dtype=object)
    for name, kind in zip(list(frame.columns), result.types, strict=True):
        column = frame[name]
        if is_number(kind):
            frame[name] = pd.to_numeric(column.map(_float), errors="coerce")
        elif kind == "BOOLEAN":
            frame[name] = column.astype("boolean")
        else:
            frame[name] = column.map(lambda value: None if value is None else cell(value))
    return frame


def axes(frame: pd.DataFrame) -> Axes | None:
    """What can be drawn; None where no column holds numbers, or there is nothing against them."""
    numbers = [name for name in frame.columns if _numeric(frame[name])]
    words = [name for name in frame.columns if name not in numbers]
    if not numbers or len(frame.columns) < 2 or len(frame) < 2:
        return None
    # in GROUP BY ... queries the grouping columns come first and the figure people look at last
    along = list(frame.columns)
    if len(numbers) > 1 and words and frame[words[0]].duplicated().any():
        along.remove(numbers[0])
        along.insert(0, numbers[0])
    up = [name for name in reversed(numbers) if name != along[0]]
    return Axes(along, up, words) if up else None


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        shown = cell(name) or "column"
        seen[shown] = seen.get(shown, 0) + 1
        found.append(shown if seen[shown] == 1 else f"{shown} ({seen[shown]})")
    return found


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _float(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else float(str(value))
