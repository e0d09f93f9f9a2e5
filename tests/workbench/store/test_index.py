"""The table of all runs opens no run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from engine.errors import UserError
from workbench.store.index import (
    RUN_ID,
    RunEntry,
    RunStatus,
    list_runs,
    new_run_id,
    process_alive,
    read_entry,
    resolve_run,
    run_file,
    sidecar,
    write_entry,
)


def entry(run_id: str, **changes: object) -> RunEntry:
    values = {"status": RunStatus.FINISHED, "started": "2026-01-01T00:00:00+00:00", "spec": {}}
    return RunEntry(run_id=run_id, **(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "runs"
    place.mkdir()
    return place


def test_ids_sort_by_time_and_differ() -> None:
    ids = {new_run_id() for _ in range(50)}
    assert len(ids) > 40
    assert all(RUN_ID.fullmatch(run_id) for run_id in ids)


def test_entries_round_trip(folder: Path) -> None:
    one = entry("20260101-000000-aaaa", summary={"steps": 3}, spec={"method": "x", "prompt": "é\0"})
    write_entry(one)
    assert list_runs() == [one]
    assert [path.name for path in folder.iterdir()] == ["20260101-000000-aaaa.json"]


def test_hundreds_of_runs_are_listed_without_opening_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    monkeypatch.setattr(duckdb, "connect", lambda *a, **k: pytest.fail("a run was opened"))
    for number in range(500):
        run_id = f"20260101-{number:06d}-aaaa"
        write_entry(entry(run_id))
        run_file(run_id).write_bytes(b"closed")
    start = time.monotonic()
    found = list_runs()
    assert time.monotonic() - start < 2
    assert [e.run_id for e in found[:2]] == ["20260101-000499-aaaa", "20260101-000498-aaaa"]
    assert len(list_runs(limit=7)) == 7


def test_a_running_run_without_its_process_is_interrupted(folder: Path) -> None:
    me = psutil.Process()
    running = {"status": RunStatus.RUNNING, "pid": me.pid, "pid_started": me.create_time()}
    write_entry(entry("20260101-000000-aaaa", **running))
    write_entry(entry("20260101-000000-bbbb", **running | {"pid": 2**22 - 7}))
    write_entry(entry("20260101-000000-cccc", **running | {"pid_started": 1000.0}))
    statuses = {e.run_id[-4:]: e.status for e in list_runs()}
    assert statuses == {"aaaa": "running", "bbbb": "interrupted", "cccc": "interrupted"}


def test_a_reused_pid_is_another_process() -> None:
    started = psutil.Process().create_time()
    assert process_alive(os.getpid(), started)
    assert not process_alive(os.getpid(), started - 3600)
    assert not process_alive(None, None)


def test_damaged_lines_do_not_hide_the_rest(folder: Path) -> None:
    write_entry(entry("20260101-000000-aaaa"))
    sidecar("20260101-000001-bbbb").write_text("{ half")
    sidecar("20260101-000002-cccc").write_text(json.dumps({"status": "dancing"}))
    run_file("20260101-000003-dddd").write_bytes(b"alone")
    (folder / "notes.json").write_text("{}")
    found = {e.run_id[-4:]: e.status for e in list_runs()}
    assert found == {
        "aaaa": "finished",
        "bbbb": "interrupted",
        "cccc": "interrupted",
        "dddd": "interrupted",
    }
    assert read_entry("20260101-000001-bbbb") is None


def test_fields_of_a_later_version_are_left_out(folder: Path) -> None:
    write_entry(entry("20260101-000000-aaaa"))
    path = sidecar("20260101-000000-aaaa")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mood": "fine"}))
    assert read_entry("20260101-000000-aaaa") is not None


def test_runs_by_prefix_and_last(folder: Path) -> None:
    for run_id in ("20260101-000000-aaaa", "20260102-000000-bbbb", "20260102-000000-bbcc"):
        write_entry(entry(run_id))
    assert resolve_run("last") == "20260102-000000-bbcc"
    assert resolve_run("20260101") == "20260101-000000-aaaa"
    assert resolve_run("bbcc") == "20260102-000000-bbcc"
    assert resolve_run("20260102-000000-bbcc") == "20260102-000000-bbcc"
    with pytest.raises(UserError, match="fits 2 runs"):
        resolve_run("20260102")
    with pytest.raises(UserError, match=r"no run '2027'.*draftree runs"):
        resolve_run("2027")
    for wanted in ("", "../../etc/passwd", "\0", "x" * 5000):
        with pytest.raises(UserError):
            resolve_run(wanted)


def test_no_runs_yet(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    with pytest.raises(UserError, match="draftree run"):
        resolve_run("last", tmp_path / "nowhere")
