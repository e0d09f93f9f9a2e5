"""Killed processes, full disks, folders that cannot be written to, files open elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from store_records import SPEC, request, step, texts

from engine.errors import UserError
from workbench.store import Recorder, RunStatus, list_runs, open_run
from workbench.store.index import mark_interrupted, prepare_folder, run_file

HERE = Path(__file__).parent

_WRITER = """
import sys, time
from store_records import SPEC, request, step, texts
from workbench.store import Recorder
recorder = Recorder(SPEC, texts=texts())
recorder.begin(mode="eager", plain_step_ns=None, environment={})
recorder.request_started(request())
print(recorder.run_id, flush=True)
start = time.monotonic()
for number in range(100_000):
    recorder.append(step(number))
    print(number, time.monotonic() - start, flush=True)
    time.sleep(0.005)
"""


def run_writer(script: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE), str(HERE.parents[2])])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill_9_loses_at_most_the_last_moments() -> None:
    writer = run_writer(_WRITER)
    assert writer.stdout is not None
    run_id = writer.stdout.readline().strip()
    lines = [writer.stdout.readline() for _ in range(400)]  # about two seconds
    assert list_runs()[0].status is RunStatus.RUNNING
    with pytest.raises(UserError, match="still in progress"):
        open_run(run_id)
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.read().splitlines(keepends=True)
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    # a zombie until it is waited for, and already not running
    assert list_runs()[0].status is RunStatus.INTERRUPTED
    writer.wait()
    last_number, last_s = [line for line in lines if line.endswith("\n")][-1].split()
    with open_run(run_id) as run:
        assert run.info.status is RunStatus.INTERRUPTED
        assert run.info.summary["steps"] == len(run.steps())
        kept = len(run.steps())
        run.step_record(0, kept - 1).tree.check_integrity()
        assert run.requests()["prompt"].tolist() == ["once"]
    appended = int(last_number) + 1
    lost_s = (appended - kept) / appended * float(last_s)
    busy = max(1.0, float(last_s) / (0.005 * appended))  # steps took so often their 5 ms
    assert lost_s < 0.8 * busy, "half a second, and what a busy machine adds"
    assert list_runs()[0].summary["steps"] > 0


_DISK_FULL = """
import resource, time
from store_records import SPEC, request, step, texts
from workbench.store import Recorder, RunStatus
recorder = Recorder(SPEC, texts=texts(), flush_s=0.05)
recorder.begin(mode="eager", plain_step_ns=None, environment={})
recorder.append(step(0))
while recorder.summary.steps == 0:
    time.sleep(0.01)
time.sleep(0.3)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
number = 1
deadline = time.monotonic() + 60
while recorder.error is None and time.monotonic() < deadline:
    for _ in range(200):
        recorder.append(step(number))
        number += 1
    time.sleep(0.01)
status = recorder.finish(RunStatus.FINISHED)
print(recorder.run_id, status, recorder.error)
"""


def test_a_full_disk_ends_the_run_as_failed_and_keeps_what_was_committed() -> None:
    writer = run_writer(_DISK_FULL)
    out, err = writer.communicate(timeout=120)
    assert writer.returncode == 0, err
    run_id, status, sentence = out.strip().split(maxsplit=2)
    assert status == "failed"
    assert sentence.startswith("The run could not be written to")
    entry = list_runs()[0]
    assert entry.status is RunStatus.FAILED
    assert "could not be written" in entry.message
    with open_run(run_id) as run:
        assert len(run.steps()) >= 1
        assert run.step_record(0, 0).emitted == step(0).emitted


def test_an_unwritable_folder_is_refused_before_anything_begins(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match=r"Runs cannot be stored in .*DRAFTREE_RUNS"):
        Recorder(SPEC, texts=texts(), folder=blocked / "runs")
    with pytest.raises(UserError, match="Runs cannot be stored"):
        prepare_folder(Path("/proc/nowhere"))


def test_too_little_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and _Full())
    with pytest.raises(UserError, match="Only 3 MB are free"):
        prepare_folder(tmp_path)


class _Full:
    free = 3 << 20


def test_a_file_open_elsewhere_is_named() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.finish(RunStatus.FINISHED)
    path = run_file(recorder.run_id)
    holder = run_writer(
        f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('open', flush=True);"
        "time.sleep(60)"
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(UserError, match="open in another program"):
            open_run(recorder.run_id)
    finally:
        holder.kill()
        holder.wait()


def test_a_run_in_this_process_is_in_progress_too() -> None:
    recorder = Recorder(SPEC, texts=texts())
    with pytest.raises(UserError, match="still in progress"):
        open_run(recorder.run_id)
    recorder.discard()
    assert list_runs() == []
    assert list(run_file("x").parent.iterdir()) == []


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    damaged = run_file("20260101-000000-aaaa")
    damaged.write_bytes(b"nonsense" * 1000)
    with pytest.raises(UserError, match="cannot be read"):
        open_run("20260101-000000-aaaa")
    duckdb.connect(run_file("20260101-000000-bbbb")).close()
    with pytest.raises(UserError, match="holds no Draftree run"):
        open_run("20260101-000000-bbbb")


def test_a_newer_format_is_refused() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.finish(RunStatus.FINISHED)
    with duckdb.connect(run_file(recorder.run_id)) as file:
        file.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(UserError, match="newer Draftree"):
        open_run(recorder.run_id)


def test_a_bug_in_a_piece_fails_the_run_and_not_the_process() -> None:
    def broken(token: int) -> str:
        raise KeyError(token)

    words = texts()
    words._decode_piece = broken
    recorder = Recorder(SPEC, texts=words, flush_s=0.02)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.request_started(request())
    recorder.append(step(0))
    deadline = time.monotonic() + 10
    while recorder.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.finish(RunStatus.FINISHED) is RunStatus.FAILED
    with open_run("last") as run:
        assert run.info.status is RunStatus.FAILED
        assert run.steps().empty, "the flush that failed was rolled back whole"


def test_marking_a_dead_workers_run() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    mark_interrupted(recorder.run_id, "The worker died of SIGILL.")
    assert list_runs()[0].status is RunStatus.INTERRUPTED
    assert list_runs()[0].message == "The worker died of SIGILL."
    recorder.finish(RunStatus.FINISHED)
    mark_interrupted(recorder.run_id, "too late")
    assert list_runs()[0].status is RunStatus.FINISHED
