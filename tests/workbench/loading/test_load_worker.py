"""Load runs in the worker: events over its pipe, cancel at once, and what is left when it dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from workbench.loading.spec import LoadSpec
from workbench.loading.state import Loading
from workbench.spec import RunSpec
from workbench.store import list_runs, open_run, serving
from workbench.worker import WorkerHandle

SECONDS = 120


@pytest.fixture
def handle() -> Iterator[WorkerHandle]:
    one = WorkerHandle()
    yield one
    one.close()


@pytest.fixture
def spec(tiny_pair: Any, tmp_path: Path) -> Callable[..., LoadSpec]:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps("def one(a):") + "\n" + json.dumps("import os") + "\n")

    def make(**changes: Any) -> LoadSpec:
        values = {
            "target": tiny_pair.target, "draft": tiny_pair.draft, "workload": str(file),
            "requests": 6, "rate": 100.0, "max_new_tokens": 10, "slots": 2, "execution": "eager",
            "ignore_eos": True,
        }  # fmt: skip
        return LoadSpec(**values | changes)

    return make


def until(handle: WorkerHandle, condition: Callable[[Loading], bool]) -> Loading:
    deadline = time.monotonic() + SECONDS
    while not condition(now := handle.snapshot().loading):
        assert time.monotonic() < deadline, f"waited in vain; {now.status}: {now.error}"
        time.sleep(0.02)
    return now


def test_a_load_run_then_a_run(handle: WorkerHandle, spec: Any) -> None:
    asked = spec()
    handle.start(asked)
    with pytest.raises(UserError, match="A load run of dynamic-tree is under way; stop it"):
        handle.start(asked)
    assert handle.wait(SECONDS)
    snapshot = handle.snapshot()
    now = snapshot.loading
    assert (snapshot.kind, snapshot.status) == ("load", "idle"), "the last run's view is its own"
    assert (now.status, now.spec, now.counts.completed) == ("finished", asked, 6)
    assert (now.output_tokens, now.metrics["output_tokens"]) == (60, 60)
    handle.start(
        RunSpec(target=asked.target, draft=asked.draft, prompt="x", max_new_tokens=4,
                execution="eager")
    )  # fmt: skip
    assert handle.wait(SECONDS)
    after = handle.snapshot()
    assert (after.kind, after.status, after.loading.run_id) == ("run", "finished", now.run_id)


def test_it_stops_at_once_and_keeps_what_it_has(handle: WorkerHandle, spec: Any) -> None:
    handle.start(spec(requests=100_000, rate=20.0, max_new_tokens=50))
    until(handle, lambda now: now.num_ticks > 5)
    asked = time.monotonic()
    handle.stop()
    assert handle.wait(SECONDS)
    assert time.monotonic() - asked < 20
    now = handle.snapshot().loading
    assert (now.status, now.active) == ("cancelled", False)
    with open_run(now.run_id) as run:
        assert len(serving.tick_rows(run)) == now.num_ticks


def test_a_worker_that_is_killed_under_load_is_named_and_leaves_what_was_written(
    handle: WorkerHandle, spec: Any
) -> None:
    handle.start(spec(requests=100_000, rate=50.0))
    until(handle, lambda now: now.counts.completed >= 5)
    time.sleep(1.0)  # the writer commits every 300 ms
    assert handle.pid is not None
    os.kill(handle.pid, signal.SIGKILL)
    assert handle.wait(SECONDS)
    now = handle.snapshot().loading
    assert (now.status, now.active) == ("interrupted", False)
    assert "SIGKILL" in now.error
    assert list_runs()[0].status == "interrupted"
    with open_run(now.run_id) as run:
        assert run.info.status == "interrupted"
        assert len(serving.arrival_rows(run)) >= 1
        assert len(serving.tick_rows(run)) >= 5
    handle.start(spec())
    assert handle.wait(SECONDS)
    assert handle.snapshot().loading.status == "finished", "a new worker took over"


def test_wrong_input_is_said_and_no_run_is_kept(handle: WorkerHandle, spec: Any) -> None:
    handle.start(spec(trace="/no/trace.csv", arrivals="trace"))
    assert handle.wait(SECONDS)
    now = handle.snapshot().loading
    assert (now.status, now.wrong_input) == ("failed", True)
    assert "/no/trace.csv cannot be read" in now.error
    assert list_runs() == []
