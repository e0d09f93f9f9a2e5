"""The index of all runs: one small JSON file beside each DuckDB file.

A table of hundreds of runs reads these and opens no DuckDB file. They are written whole or not at
all. A run that says "running" while its process is gone reads as interrupted.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from engine.errors import UserError
from engine.paths import runs_folder
from workbench.store.schema import RunStatus

RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
LAST = "last"
_MIN_FREE_BYTES = 64 << 20
#: seconds by which two readings of a process's start may differ (clock adjustments)
_START_TOLERANCE_S = 5.0
INTERRUPTED_MESSAGE = "The process that wrote this run ended before the run did."


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One line of the index."""

    run_id: str
    status: RunStatus
    started: str  # ISO 8601, UTC
    spec: dict[str, Any]
    finished: str | None = None
    mode: str | None = None
    message: str = ""
    summary: dict[str, Any] = field(default_factory=dict)  # RunSummary.as_json()
    pid: int | None = None
    pid_started: float | None = None  # guards against a reused pid

    @property
    def method(self) -> str:
        return str(self.spec.get("method", ""))


def now_iso() -> str:
    """The time as it is stored."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Sortable by time (UTC): after the second two hex digits of its fraction, two random."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond * 256 // 1_000_000:02x}{secrets.token_hex(1)}"


def run_file(run_id: str, folder: Path | None = None) -> Path:
    """The DuckDB file of a run."""
    return (folder or runs_folder()) / f"{run_id}.duckdb"


def sidecar(run_id: str, folder: Path | None = None) -> Path:
    """The index line of a run."""
    return (folder or runs_folder()) / f"{run_id}.json"


def prepare_folder(folder: Path | None = None) -> Path:
    """Make the folder of runs; raise UserError where nothing can be stored there."""
    folder = folder or runs_folder()
    hint = "Set DRAFTREE_RUNS to a folder you can write to."
    probe = folder / f".write-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Runs cannot be stored in {folder}: {reason}. {hint}") from None
    if free < _MIN_FREE_BYTES:
        raise UserError(f"Only {free >> 20} MB are free in {folder}; a run wants 64 MB. {hint}")
    return folder


def write_entry(entry: RunEntry, folder: Path | None = None) -> None:
    """Store `entry`, whole or not at all. Raises OSError."""
    target = sidecar(entry.run_id, folder)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(json.dumps(asdict(entry)), encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def read_entry(run_id: str, folder: Path | None = None) -> RunEntry | None:
    """The index line of a run, None where it has none that can be read."""
    try:
        stored = json.loads(sidecar(run_id, folder).read_text(encoding="utf-8"))
        known = {name: stored[name] for name in RunEntry.__dataclass_fields__ if name in stored}
        entry = RunEntry(**known | {"status": RunStatus(stored["status"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if entry.status is RunStatus.RUNNING and not process_alive(entry.pid, entry.pid_started):
        return replace(
            entry,
            status=RunStatus.INTERRUPTED,
            message=entry.message or INTERRUPTED_MESSAGE,
        )
    return entry


def process_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process is still there, and is the one meant and not a later one."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < _START_TOLERANCE_S
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def mark_interrupted(run_id: str, message: str, folder: Path | None = None) -> None:
    """Say for good that a running run was interrupted, and why."""
    entry = read_entry(run_id, folder)
    if entry is None or entry.status not in (RunStatus.RUNNING, RunStatus.INTERRUPTED):
        return
    marked = replace(
        entry, status=RunStatus.INTERRUPTED, message=message, finished=entry.finished or now_iso()
    )
    write_entry(marked, folder)


def run_ids(folder: Path | None = None) -> list[str]:
    """Ids of all runs, newest first."""
    folder = folder or runs_folder()
    try:
        stems = {path.stem for path in folder.iterdir() if path.suffix in (".json", ".duckdb")}
    except OSError:
        return []
    return sorted((stem for stem in stems if RUN_ID.fullmatch(stem)), reverse=True)


def iter_runs(folder: Path | None = None) -> Iterator[RunEntry]:
    """Entries, newest first, read one by one. A file without its index line gets a bare one."""
    for run_id in run_ids(folder):
        entry = read_entry(run_id, folder)
        yield entry or RunEntry(
            run_id=run_id,
            status=RunStatus.INTERRUPTED,
            started=_time_of(run_id),
            spec={},
            message="The index line of this run is missing; its file may still open.",
        )


def list_runs(folder: Path | None = None, *, limit: int | None = None) -> list[RunEntry]:
    """The newest `limit` runs, newest first."""
    from itertools import islice

    return list(islice(iter_runs(folder), limit))


def resolve_run(wanted: str, folder: Path | None = None) -> str:
    """The id for 'last', an id, or the unique beginning (or end) of one.

    Raises:
        UserError: no such run, or several.
    """
    ids = run_ids(folder)
    place = folder or runs_folder()
    if not ids:
        raise UserError(f"There are no runs in {place}; make one with `draftree run`.")
    wanted = wanted.strip()
    if wanted == LAST:
        return ids[0]
    if wanted in ids:
        return wanted
    found = [run_id for run_id in ids if wanted and run_id.startswith(wanted)]
    found = found or [run_id for run_id in ids if len(wanted) >= 4 and run_id.endswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:4])
        raise UserError(f"{wanted!r} fits {len(found)} runs ({shown}, ...); add digits.")
    raise UserError(f"There is no run {wanted[:80]!r} in {place}; `draftree runs` lists them.")


def _time_of(run_id: str) -> str:
    try:
        moment = datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return moment.isoformat(timespec="milliseconds")
