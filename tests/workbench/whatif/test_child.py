"""Completing in a child process: progress, errors in words, death named, cancel at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from workbench.store import open_run
from workbench.whatif.child import Completion
from workbench.whatif.complete import ranks_of

SCRIPTS = {
    "slow": "import json, time\nprint(json.dumps({'message': 'Half', 'share': 0.5}), flush=True)\n"
    "time.sleep(600)",
    "wrong": "import json\nprint('noise')\nprint(json.dumps({'error': 'No such run.'}))",
    "dies": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in SCRIPTS.items():
        (tmp_path / f"child_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name: Completion("x", module=f"child_{name}")


def test_progress_is_told_and_cancel_works_at_once(script):
    job = script("slow")
    deadline = time.monotonic() + 60
    while job.progress.share != 0.5 and time.monotonic() < deadline:
        job.wait(0.02)
    assert job.progress.message == "Half"
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 5
    assert not job.progress.active
    assert job.progress.error == ""


def test_an_error_is_its_sentence(script):
    progress = script("wrong").wait(60)
    assert (progress.active, progress.error) == (False, "No such run.")


def test_death_is_named(script):
    assert "SIGKILL" in script("dies").wait(60).error


def test_a_real_one_makes_the_ranks_exact(decode):
    run_id = decode()
    assert not ranks_of(run_id).complete
    progress = Completion(run_id).wait(120)
    assert progress.error == ""
    ranks = ranks_of(run_id)
    assert ranks.complete
    with open_run(run_id) as run:
        recorded = run.tokens()
    known = recorded["draft_rank"].notna()
    assert ranks.requests[0].rank_L[known].tolist() == recorded["draft_rank"][known].tolist()
