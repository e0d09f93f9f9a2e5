"""The log of a training: what is appended is read again, whatever a kill cut short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engine.training.heads_log import FILE, HeadLog, find_logs, read_log


def _begin(folder: Path, *, step: int = 0) -> HeadLog:
    log = HeadLog(folder)
    log.start(kind="medusa", target="t", target_hash="0", out="heads/t", step=step, tokens=0)
    return log


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_log(tmp_path) is None
    log = _begin(tmp_path / "a")
    for step in (1, 2):
        log.write("step", step=step, tokens=10 * step, fraction=0.1 * step, loss=1.0, rate=5.0)
    log.write("accuracy", step=2, tokens=20, fraction=0.2, loss=1.1, held_out={"2": {"top1": 0.3}})
    run = read_log(tmp_path / "a")
    assert run is not None
    assert run.start["kind"] == "medusa"
    assert [line["step"] for line in run.steps] == [1, 2]
    assert run.accuracy[0]["held_out"]["2"]["top1"] == 0.3
    assert run.end is None
    assert run.alive
    log.write("end", step=2, tokens=20, fraction=1.0, state="finished", message="")
    done = read_log(tmp_path / "a")
    assert done is not None
    assert done.end is not None
    assert done.end["state"] == "finished"
    assert not done.alive


def test_steps_trained_again_after_a_kill_are_told_once(tmp_path: Path) -> None:
    log = _begin(tmp_path)
    for step in range(1, 6):
        log.write("step", step=step, loss=float(step))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"event": "step", "ste')  # the kill
    log = _begin(tmp_path, step=3)
    log.write("step", step=4, loss=44.0)
    run = read_log(tmp_path)
    assert run is not None
    assert [(line["step"], line["loss"]) for line in run.steps] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 44.0)
    ]  # fmt: skip


def test_a_killed_process_trains_no_more(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from engine.training.heads_log import HeadLog;"
        "HeadLog(Path(sys.argv[1])).start(kind='medusa', step=0)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=root)
    run = read_log(tmp_path)
    assert run is not None
    assert run.end is None
    assert run.start["pid"] != os.getpid()
    assert not run.alive


def test_logs_are_found_latest_first(tmp_path: Path) -> None:
    for name in ("old", "new"):
        _begin(tmp_path / "runs" / name)
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / FILE).write_text("nothing\n[1]\n")
    assert [run.folder.name for run in find_logs(tmp_path)] == ["new", "old"]
