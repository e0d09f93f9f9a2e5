"""A run's tables as Parquet, CSV or JSON files, for those who have no DuckDB 2 at hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from engine.errors import UserError
from workbench.store.reader import RunReader
from workbench.store.schema import TABLES

FORMATS = ("parquet", "csv", "json")


def export_run(run: RunReader, out: Path, *, form: str) -> list[Path]:
    """Write one file per table into folder `out`, made where missing; return their paths.

    JSON files hold a list of objects; numbers that JSON cannot hold (-inf, NaN) become null.

    Raises:
        UserError: unknown form, or a folder that cannot be written to.
    """
    if form not in FORMATS:
        raise UserError(f"Format {form!r} is unknown; use one of {', '.join(FORMATS)}.")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in TABLES:
            path = out / f"{table}.{form}"
            _write(run.arrow(table), path, form)
            written.append(path)
    except OSError as error:
        raise UserError(f"{out} cannot be written to: {error.strerror or error}.") from None
    return written


def _write(table: Any, path: Path, form: str) -> None:
    if form == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, path)
    elif form == "csv":
        from pyarrow import csv

        csv.write_csv(table, path)
    else:
        with path.open("w", encoding="utf-8") as stream:
            stream.write("[")
            separator = "\n"
            for batch in table.to_batches():
                for row in batch.to_pylist():
                    stream.write(separator + json.dumps({k: _plain(v) for k, v in row.items()}))
                    separator = ",\n"
            stream.write("\n]\n")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
