"""Asking: the child is started, waited for or cancelled here, and its answer put into words."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import UserError
from workbench.store.index import RunEntry, list_runs, run_file
from workbench.store.schema import RunStatus

#: seconds a child gets beyond its own limit, to start and to open all files
_ROOM_S = 30.0
#: exit code of a child that ended itself because time was up; see `process`
_OVERDUE = 3
#: every attached file takes a descriptor
MOST_RUNS = 500
_MOST_SQL = 100_000


class Limits(NamedTuple):
    """What one query may take."""

    rows: int = 1_000
    seconds: float = 20.0
    memory_mb: int = 1_024


class Result(NamedTuple):
    """The rows of a query. `complete` is False where there are more."""

    columns: list[str]
    types: list[str]  # DuckDB's names
    rows: list[tuple[Any, ...]]
    complete: bool
    seconds: float
    num_runs: int
    left_out: list[tuple[str, str]]  # run id and why


class Queryable(NamedTuple):
    """Runs a query can be asked of, newest first, and how many are stored in all."""

    run_ids: list[str]
    num_stored: int


def queryable(
    newest: int | None = None,
    folder: Path | None = None,
    *,
    entries: Sequence[RunEntry] | None = None,
) -> Queryable:
    """The newest runs that have ended. Those in progress belong to their writer.

    `entries` is the index, newest first, where the caller has read it already.
    """
    entries = list_runs(folder) if entries is None else entries
    ended = [entry for entry in entries if entry.status is not RunStatus.RUNNING]
    found = [entry.run_id for entry in ended if run_file(entry.run_id, folder).is_file()]
    return Queryable(found[: min(newest or MOST_RUNS, MOST_RUNS)], len(found))


def ask(
    sql: str,
    run_ids: Sequence[str],
    *,
    limits: Limits | None = None,
    folder: Path | None = None,
) -> Result:
    """The rows of a query over these runs. Raises UserError where it cannot be answered."""
    query = Query(sql, run_ids, limits=limits, folder=folder)
    try:
        query.wait()
    except BaseException:
        query.cancel()
        raise
    return query.result()


class Query:
    """One query on its way: `done`, `result()`, `cancel()`. Several threads may look at it."""

    def __init__(
        self,
        sql: str,
        run_ids: Sequence[str],
        *,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        """Begins at once. Raises UserError for what need not even be tried."""
        if len(sql) > _MOST_SQL:
            raise UserError(f"The query has {len(sql):,} characters; at most {_MOST_SQL:,} go.")
        if len(run_ids) > MOST_RUNS:
            raise UserError(f"{len(run_ids)} runs are too many for one query; take {MOST_RUNS}.")
        self.sql, self.limits = sql, limits or Limits()
        self.cancelled = False
        files = [(run_id, str(run_file(run_id, folder).resolve())) for run_id in run_ids]
        request = {"sql": sql, "files": files} | {
            name: getattr(self.limits, name) for name in ("rows", "seconds", "memory_mb")
        }
        self._begun = time.monotonic()
        self._seconds = 0.0
        self._answer: dict[str, Any] | None = None
        self._process = _child()
        self._thread = threading.Thread(
            target=self._read, args=(json.dumps(request).encode(),), name="query", daemon=True
        )
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    @property
    def elapsed(self) -> float:
        """Seconds since it began, or that it took."""
        return self._seconds or time.monotonic() - self._begun

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the answer; False if it took longer than `seconds`."""
        self._thread.join(seconds)
        return self.done

    def cancel(self) -> None:
        """End it now."""
        self.cancelled = True
        self._process.kill()

    def result(self) -> Result:
        """Its rows. Raises UserError with a sentence where it has none."""
        self._thread.join()
        if self.cancelled:
            raise UserError("The query was cancelled.")
        found = self._answer
        assert found is not None
        if "error" in found:
            raise UserError(self._sentence(found["error"], found["text"]))
        return Result(
            found["columns"], found["types"], found["rows"], found["complete"], self._seconds,
            found["num_runs"], found["left_out"],
        )  # fmt: skip

    # --- inside ---

    def _read(self, request: bytes) -> None:
        overdue = False
        try:
            out, _ = self._process.communicate(request, self.limits.seconds + _ROOM_S)
        except subprocess.TimeoutExpired:
            overdue = True
            self._process.kill()
            out, _ = self._process.communicate()
        except OSError:  # it ended before it had read the request
            out = b""
        self._seconds = time.monotonic() - self._begun
        if self._process.returncode == 0 and out:
            self._answer = pickle.loads(out)  # from our own child
        else:  # it ended early: by its own clock, or because memory ran out
            overdue = overdue or self._process.returncode == _OVERDUE
            self._answer = {"error": "timeout" if overdue else "memory", "text": ""}

    def _sentence(self, kind: str, text: str) -> str:
        if kind == "timeout":
            return (
                f"The query took longer than {self.limits.seconds:.0f} seconds and was stopped; "
                "narrow it with WHERE, aggregate earlier, or choose fewer runs."
            )
        if kind == "memory":
            return (
                f"The query wanted more than {self.limits.memory_mb} MB of memory; narrow it with "
                "WHERE, aggregate, or choose fewer runs."
            )
        if kind == "locked":
            return (
                "A query reaches the tables of the chosen runs and nothing else: no file, no "
                "network, no setting."
            )
        return text if kind == "refused" else error_sentence(text)


_LINE = re.compile(r"^LINE (\d+): (.*)\n( *)\^", re.MULTILINE)


def error_sentence(text: str) -> str:
    """DuckDB's message as one line that ends in the place: line, column and what stands there."""
    first, _, rest = text.partition("\n")
    first = re.sub(r"^[A-Z][\w -]* Error: ", "", first).strip()
    hints = " ".join(
        line.strip() for line in rest.split("\n\n")[0].splitlines() if line.strip()
    ).replace("LINE", "\0")
    hints = hints.split("\0")[0].strip()
    parts = [_stopped(first)] + ([_stopped(hints)] if hints else [])
    if place := _LINE.search(text):
        line, source, indent = int(place[1]), place[2], len(place[3])
        at = max(0, indent - len(f"LINE {line}: "))
        here = source[at:].split("\n")[0].strip()[:40]
        parts.append(f"Line {line}" + (f", at “{here}”." if here else ", at its end."))
    return " ".join(parts)


def _stopped(text: str) -> str:
    text = text[0].upper() + text[1:] if text else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _child() -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.query.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        start_new_session=True,  # Ctrl-C is for the parent to handle
    )
