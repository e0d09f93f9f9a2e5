"""The child that answers one query: `python -m workbench.query.process`.

Reads a request as JSON from standard input, writes the answer as a pickle to standard output. It
imports DuckDB and no more of Draftree than names of tables. Before the query is looked at, the
connection can reach nothing but the files attached, and its configuration is locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

import duckdb

from workbench.query.tables import NAMES, view_sql

_CONFIG: dict[str, Any] = {
    "threads": 2,
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",
}
#: some functions do not heed an interrupt: the process then ends itself, with this code
GRACE_S = 1.0
OVERDUE = 3
_CHUNK_ROWS = 500
_MOST_BYTES = 64 << 20
#: address space beside what DuckDB counts: the interpreter, its libraries and the rows handed over
_ROOM_MB = 3072


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request: columns and rows, or an error with its kind."""
    connection = duckdb.connect(
        ":memory:", config=_CONFIG | {"memory_limit": f"{request['memory_mb']}MB"}
    )
    attached, left_out = _attach(connection, request["files"])
    _views(connection, attached)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    found: dict[str, Any] = {"num_runs": len(attached), "left_out": left_out}
    try:
        _check(connection, request["sql"])
        with _limited(connection, request["seconds"]):
            return found | _rows(connection, request["sql"], request["rows"])
    except _RefusedError as refused:
        return found | {"error": "refused", "text": str(refused)}
    except duckdb.InterruptException:
        return found | {"error": "timeout", "text": ""}
    except (duckdb.OutOfMemoryException, MemoryError):
        return found | {"error": "memory", "text": ""}
    except duckdb.PermissionException:
        return found | {"error": "locked", "text": ""}
    except duckdb.Error as error:
        return found | {"error": "sql", "text": str(error)}


class _RefusedError(Exception):
    """The statement is not one that may run here."""


def _attach(
    connection: duckdb.DuckDBPyConnection, files: list[tuple[str, str]]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Attach files given as (run id, path). Those that do not open are left out, with why."""
    attached, left_out = [], []
    for at, (run_id, path) in enumerate(files):
        quoted = path.replace("'", "''")
        try:
            connection.execute(f"ATTACH '{quoted}' AS r{at} (READ_ONLY)")
            attached.append((f"r{at}", run_id))
        except duckdb.Error as error:
            busy = "lock" in str(error)
            left_out.append((run_id, "in progress" if busy else "cannot be read"))
    return attached, left_out


def _views(connection: duckdb.DuckDBPyConnection, attached: list[tuple[str, str]]) -> None:
    held: dict[str, dict[str, set[str]]] = {name: {} for name in NAMES}
    for database, table, column in connection.execute(
        "SELECT database_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal"
    ).fetchall():
        if table in held:
            held[table].setdefault(database, set()).add(column)
    for table in NAMES:
        connection.execute(view_sql(table, attached, held[table]))


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if not statements:
        raise _RefusedError("The query is empty; type a SELECT, or take an example.")
    if len(statements) > 1:
        raise _RefusedError(f"These are {len(statements)} statements; give one at a time.")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        what = "PIVOT without a list of values" if kind.name == "MULTI" else kind.name
        raise _RefusedError(
            f"Only SELECT is answered here, and this is {what}: stored runs are read, never "
            "changed, and no other file is touched."
        )


@contextlib.contextmanager
def _limited(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt after `seconds`; end the process a little later where that was not heeded."""
    timers = [
        threading.Timer(seconds, connection.interrupt),
        threading.Timer(seconds + GRACE_S, os._exit, args=(OVERDUE,)),
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, most: int) -> dict[str, Any]:
    """Rows as they stream in, until there are enough: the rest is never made."""
    connection.execute(sql)
    described = connection.description or []
    rows: list[tuple[Any, ...]] = []
    size, complete = 0, False
    while len(rows) <= most and size < _MOST_BYTES:
        chunk = connection.fetchmany(min(_CHUNK_ROWS, most + 1 - len(rows)))
        if not chunk:
            complete = True
            break
        size += len(pickle.dumps(chunk))
        rows += chunk
    return {
        "columns": [column[0] for column in described],
        "types": [str(column[1]) for column in described],
        "rows": rows[:most],
        "complete": complete or len(rows) < most,
    }


def _limit_memory(memory_mb: int) -> None:
    """What DuckDB does not count ends this process at worst, and leaves the machine alone."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit = (memory_mb + _ROOM_MB) << 20
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    """Answer the request on standard input."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write into the answer
    request = json.load(sys.stdin)
    _limit_memory(request["memory_mb"])
    with out:
        pickle.dump(answer(request), out)
    os._exit(0)  # an interrupted query may still hold threads


if __name__ == "__main__":
    main()
