"""Reading a stored run: frames for analysis, and steps rebuilt for replay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import duckdb
import pandas as pd

from engine.errors import UserError
from engine.records import StepRecord
from engine.tree import TokenTree
from workbench.loading.spec import stored_spec
from workbench.spec import RunSpec
from workbench.store import index
from workbench.store.rebuild import step_from_rows
from workbench.store.schema import SCHEMA_VERSION, TABLES, RunStatus

_CONFIG: dict[str, Any] = {
    "threads": 2,
    "memory_limit": "1GB",
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}


class RunInfo(NamedTuple):
    """The run's own row."""

    run_id: str
    status: RunStatus
    started: str
    finished: str | None
    mode: str | None
    plain_step_ns: int | None
    message: str
    spec: RunSpec  # a `LoadSpec` where requests came as they would to a server
    environment: dict[str, Any]
    summary: dict[str, Any]


def open_run(wanted: str, folder: Path | None = None) -> RunReader:
    """Open a run read-only, by id, by the beginning of one, or as 'last'. Use it in a `with`.

    Raises:
        UserError: no such run, a run still in progress, a file open elsewhere or damaged.
    """
    return RunReader(index.resolve_run(wanted, folder), folder)


class RunReader:
    """A run's file, open read-only and unable to reach any other file."""

    def __init__(self, run_id: str, folder: Path | None = None) -> None:
        self.run_id = run_id
        self._folder = folder
        self._connection = _connect(run_id, folder)
        try:
            self._check_version()
            self._tables = self._read_tables()
            self.info = self._read_info()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """The rows of a query. Raises duckdb.Error for SQL that does not run."""
        cursor = self._connection.cursor()
        try:
            return cursor.execute(sql, list(parameters)).df()
        finally:
            cursor.close()

    def arrow(self, table: str) -> Any:
        """A whole table as pyarrow.Table, typed as in `schema.TABLES`."""
        cursor = self._connection.cursor()
        try:
            return cursor.sql(f"SELECT * FROM {self.source(table)}").to_arrow_table()
        finally:
            cursor.close()

    def holds(self, table: str) -> bool:
        """Whether the file has this table; those of older formats lack some."""
        return _known(table) in self._tables

    def source(self, table: str) -> str:
        """What to select a table from in SQL: an empty one of its columns where it is missing."""
        if self.holds(table):
            return table
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {n}" for n, kind in TABLES[table].items())
        return f"(SELECT {columns} WHERE false)"

    def requests(self) -> pd.DataFrame:
        """All requests in order, the unfinished ones too (their `finish_reason` is missing)."""
        return self.query('SELECT * FROM request ORDER BY "repeat", request')

    def steps(self, *, request: int | None = None, repeat: int | None = None) -> pd.DataFrame:
        """Steps in the order in which they were made."""
        return self._rows(
            "step", 'ORDER BY batch_step, request, "repeat", step', request=request, repeat=repeat
        )

    def nodes(
        self, *, request: int | None = None, step: int | None = None, repeat: int | None = None
    ) -> pd.DataFrame:
        """Nodes of one step, of one request or of the run; `piece` shows the token."""
        return self._rows(
            _with_piece("node"),
            'ORDER BY "repeat", request, step, node',
            request=request,
            step=step,
            repeat=repeat,
        )

    def tokens(self, *, request: int | None = None, repeat: int | None = None) -> pd.DataFrame:
        """Emitted tokens by position: `text` is what each adds, `piece` shows the token."""
        return self._rows(
            _with_piece("token"),
            'ORDER BY "repeat", request, position',
            request=request,
            repeat=repeat,
        )

    def pieces(self) -> dict[int, str]:
        """Text of each token that occurs in the run."""
        frame = self.query("SELECT * FROM piece")
        return dict(zip(frame["token"].tolist(), frame["text"].tolist(), strict=True))

    def tree(self, request: int, step: int, repeat: int = 0) -> TokenTree:
        """The tree of one step. Raises UserError where there is no such step."""
        return self.step_record(request, step, repeat).tree

    def step_record(self, request: int, step: int, repeat: int = 0) -> StepRecord:
        """One step as it was recorded. Raises UserError where there is no such step."""
        where = {"request": request, "step": step, "repeat": repeat}
        steps = self._rows("step", "", **where)
        if steps.empty:
            raise UserError(self._no_such_step(request, step, repeat))
        nodes = self._rows("node", "ORDER BY node", **where)
        tokens = self._rows("token", "ORDER BY position", **where)
        return step_from_rows(steps.iloc[0], nodes, tokens)

    # --- inside ---

    def _rows(self, source: str, order: str, **where: int | None) -> pd.DataFrame:
        given = {name: value for name, value in where.items() if value is not None}
        clause = " AND ".join(f'"{name}" = ?' for name in given)
        sql = f"SELECT * FROM {source} {f'WHERE {clause}' if given else ''} {order}"
        return self.query(sql, [int(value) for value in given.values()])

    def _no_such_step(self, request: int, step: int, repeat: int) -> str:
        frame = self.query(
            'SELECT count(*) AS n FROM step WHERE request = ? AND "repeat" = ?', [request, repeat]
        )
        count = int(frame["n"].iloc[0])
        if count:
            return f"Request {request} has steps 0 to {count - 1}, not {step}."
        known = self.query("SELECT DISTINCT request FROM step ORDER BY request")["request"].tolist()
        if not known:
            return f"Run {self.run_id} holds no steps."
        shown = ", ".join(map(str, known[:12])) + (", ..." if len(known) > 12 else "")
        return f"Run {self.run_id} has no steps of request {request}; it has those of {shown}."

    def _check_version(self) -> None:
        try:
            rows = self._connection.execute("SELECT version FROM schema_version").fetchall()
        except duckdb.CatalogException:
            rows = []
        if not rows:
            raise UserError(f"{index.run_file(self.run_id, self._folder)} holds no Draftree run.")
        if rows[0][0] > SCHEMA_VERSION:
            raise UserError(
                f"Run {self.run_id} was written by a newer Draftree (format {rows[0][0]}, this one "
                f"reads up to {SCHEMA_VERSION}); update Draftree."
            )

    def _read_tables(self) -> set[str]:
        found = self._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {name for (name,) in found}

    def _read_info(self) -> RunInfo:
        names = list(TABLES["run"])
        found = self._connection.execute(f"SELECT {', '.join(names)} FROM run").fetchone()
        if found is None:
            raise UserError(f"{index.run_file(self.run_id, self._folder)} holds no Draftree run.")
        row = dict(zip(names, found, strict=True))
        status, message = RunStatus(row["status"]), row["message"] or ""
        finished = row["finished"]
        if status is RunStatus.RUNNING:  # the file opened, so nobody writes it any more
            entry = index.read_entry(self.run_id, self._folder)
            status = RunStatus.INTERRUPTED
            message = (entry.message if entry else "") or index.INTERRUPTED_MESSAGE
            finished = entry.finished if entry else None
        return RunInfo(
            run_id=row["run"],
            status=status,
            started=row["started"],
            finished=finished,
            mode=row["mode"],
            plain_step_ns=row["plain_step_ns"],
            message=message,
            spec=stored_spec(row["spec"]),
            environment=json.loads(row["environment"] or "{}"),
            summary=json.loads(row["summary"] or "{}"),
        )


def _with_piece(table: str) -> str:
    """The table with a column `piece` beside `token`."""
    return (
        f"(SELECT {table}.*, piece.text AS piece FROM {table} "
        f"LEFT JOIN piece ON piece.token = {table}.token)"
    )


def _known(table: str) -> str:
    if table not in TABLES:
        raise UserError(f"There is no table {table!r}; there are {', '.join(TABLES)}.")
    return table


def _connect(run_id: str, folder: Path | None) -> duckdb.DuckDBPyConnection:
    path = index.run_file(run_id, folder)
    entry = index.read_entry(run_id, folder)
    if not path.exists():
        raise UserError(f"The file of run {run_id} is gone: {path}")
    try:
        return duckdb.connect(path, read_only=True, config=_CONFIG)
    except duckdb.Error as error:
        text = str(error)
        busy = "lock" in text or "different configuration" in text
        if busy and entry is not None and entry.status is RunStatus.RUNNING:
            raise UserError(
                f"Run {run_id} is still in progress; it opens when it has ended."
            ) from None
        if busy:
            raise UserError(
                f"The file of run {run_id} is open in another program; close it there: {path}"
            ) from None
        reason = (text.strip().splitlines() or [""])[0][:300]
        raise UserError(f"The file of run {run_id} cannot be read ({reason}): {path}") from None
