"""Rows as CSV, as JSON values and as text for the eye. Text of models stays data in all of them."""

from __future__ import annotations

import csv
import io
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from workbench.query.asking import Result
from workbench.view.visible import safe_text

DASH = "–"
_MOST_CELL = 400


def to_csv(result: Result) -> str:
    """RFC 4180 with a header; NULL is empty. Control characters stay: a file shows nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(result.columns)
    for row in result.rows:
        writer.writerow(["" if value is None else _flat(value) for value in row])
    return text.getvalue()


def to_json(result: Result) -> dict[str, Any]:
    """Columns, types and rows as JSON values, and whether these are all."""
    return {
        "columns": [
            {"name": name, "type": kind}
            for name, kind in zip(result.columns, result.types, strict=True)
        ],
        "rows": [[plain(value) for value in row] for row in result.rows],
        "complete": result.complete,
        "runs": result.num_runs,
        "left_out": [{"run": run_id, "why": why} for run_id, why in result.left_out],
        "seconds": round(result.seconds, 3),
    }


def cell(value: Any) -> str:
    """One value on a line, safe to show."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.6g}"
    line = safe_text(str(_flat(value))).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= _MOST_CELL else line[: _MOST_CELL - 1] + "…"


def is_number(kind: str) -> bool:
    """Whether a column of this type stands right."""
    return kind.startswith(("DECIMAL", "U")) or kind in (
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE"),
    )


def plain(value: Any) -> Any:
    """A value as JSON knows it; what JSON has no word for becomes text or null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return _flat(value)


def _flat(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} s"
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float) else str(value)
