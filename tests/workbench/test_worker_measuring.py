"""The worker measures as well as runs: one job at a time, told apart, stopped, named when dead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from workbench.comparing import result
from workbench.comparing.result import CompareSpec
from workbench.events import MeasuringFinished, MeasuringStarted, Progress
from workbench.jobs import execute, kind_of, under_way
from workbench.measuring import MeasuringState, TimeLeft
from workbench.spec import RunSpec
from workbench.store import list_runs
from workbench.sweeping.keeping import load_sweep
from workbench.sweeping.spec import SweepSpec
from workbench.worker import WorkerHandle, worker_settings

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _jobs_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def handle() -> Iterator[WorkerHandle]:
    one = WorkerHandle(job="worker_jobs:measuring")
    yield one
    one.close()


def comparison(workload: str = "code", repeats: int = 20) -> CompareSpec:
    return CompareSpec(methods=["speculative"], workloads=[workload], repeats=repeats)


def a_run(tokens: int = 20) -> RunSpec:
    return RunSpec(prompt="fine", max_new_tokens=tokens, draft=None)


def a_sweep(**changes: Any) -> SweepSpec:
    values = {"name": "s", "methods": ["speculative:length=[2,3]"], "workloads": ["code"]}
    return SweepSpec(**values | changes)


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_comparison_leaves_the_last_run_in_view(handle: WorkerHandle) -> None:
    handle.start(a_run())
    assert handle.wait(60)
    run = handle.snapshot()
    assert (run.kind, run.measuring.status) == ("run", "idle")
    handle.start(comparison())
    seen = {handle.snapshot().measuring.status}
    fractions = []
    while not handle.wait(0.01):
        now = handle.snapshot()
        seen.add(now.measuring.status)
        fractions.append(now.measuring.fraction)
        assert (now.kind, now.status, now.run_id) == ("compare", "finished", run.run_id)
    last = handle.snapshot()
    assert seen | {last.measuring.status} >= {"starting", "running", "finished"}
    assert fractions == sorted(fractions)
    assert (last.measuring.result, last.measuring.error) == ("compare-1", "")
    assert (last.num_steps, last.summary.kept) == (20, 20), "the run's figures are its own"
    handle.start(a_run(5))
    assert handle.wait(60)
    assert handle.snapshot().kind == "run"
    assert handle.snapshot().measuring.result == "compare-1"


def test_one_job_at_a_time_and_it_is_named(handle: WorkerHandle) -> None:
    handle.start(comparison(repeats=100_000))
    with pytest.raises(UserError, match="comparison of 1 arm on code is under way; stop it"):
        handle.start(a_run())
    with pytest.raises(UserError, match="comparison of 1 arm"):
        handle.start(comparison())
    handle.stop()
    assert handle.wait(60)
    handle.start(a_run(100_000))
    with pytest.raises(UserError, match="run of dynamic-tree is under way"):
        handle.start(a_sweep())
    handle.stop()
    assert handle.wait(60)


def test_stop_ends_a_comparison_soon(handle: WorkerHandle) -> None:
    handle.start(comparison(repeats=100_000))
    until(lambda: handle.snapshot().measuring.fraction > 0)
    began = time.monotonic()
    handle.stop()
    assert handle.wait(60)
    assert time.monotonic() - began < 5
    found = handle.snapshot().measuring
    assert (found.status, found.result, found.seconds_left) == ("cancelled", "compare-1", None)


def test_wrong_input_is_told_apart(handle: WorkerHandle) -> None:
    handle.start(comparison("wrong"))
    assert handle.wait(60)
    found = handle.snapshot()
    assert (found.measuring.status, found.measuring.wrong_input) == ("failed", True)
    assert found.measuring.error == "The workload is wrong."
    assert (found.status, found.error) == ("idle", ""), "no run has failed"


@pytest.mark.parametrize(
    ("death", "reason"), [("SIGKILL", "memory ran out"), ("SIGILL", "use float32")]
)
def test_a_dead_worker_is_named(handle: WorkerHandle, death: str, reason: str) -> None:
    handle.start(comparison(death))
    assert handle.wait(60)
    found = handle.snapshot().measuring
    assert found.status == "interrupted"
    assert death in found.error
    assert reason in found.error
    (entry,) = list_runs()
    assert (entry.status, entry.message) == ("interrupted", found.error)
    handle.start(comparison())
    assert handle.wait(60)
    assert handle.snapshot().measuring.status == "finished"


def test_the_real_jobs_on_a_real_pair(tiny_pair: Any, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text('"def f("\n"import os"\n')
    common = {
        "workloads": [str(prompts)], "target": tiny_pair.target, "draft": tiny_pair.draft,
        "max_new_tokens": 8, "repeats": 1, "executions": ["eager"], "device": "cpu",
        "baselines": [], "threads": 1,
    }  # fmt: skip
    handle = WorkerHandle()
    handle.start(CompareSpec(methods=["speculative:length=[2,3]"], **common))
    assert handle.wait(240)
    found = handle.snapshot().measuring
    assert (found.status, found.error) == ("finished", "")
    assert {arm.label for arm in result.load(found.result).arms} == {
        "autoregressive",
        "speculative:length=2",
        "speculative:length=3",
    }
    handle.start(SweepSpec(name="s", methods=["speculative:length=[2,3]"], **common))
    assert handle.wait(240)
    assert handle.snapshot().measuring.result == "s"
    assert load_sweep("s").left == []
    handle.close()


# --- words, settings, time left -----------------------------------------------------------------


def test_kinds_are_told_by_their_spec() -> None:
    specs = [a_run(), comparison(), a_sweep()]
    assert [kind_of(spec) for spec in specs] == ["run", "compare", "sweep"]
    assert under_way(a_sweep()) == "The sweep s is under way"
    many = CompareSpec(methods=["a:n=[1,2]", "b"], workloads=["x/code", "edit"])
    assert under_way(many) == "A comparison of 3 arms on code and edit is under way"


def test_half_precision_anywhere_sets_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench import worker

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(worker, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    both = comparison().model_copy(update={"dtypes": ["float32", "bfloat16"], "device": "cpu"})
    assert worker_settings(both) == {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    assert worker_settings(comparison()) == {}


def test_an_unknown_method_is_refused_by_the_job() -> None:
    with pytest.raises(UserError, match="Method 'nope' is unknown"):
        execute(CompareSpec(methods=["nope"], workloads=["code"]), lambda e: None, lambda: False)


def test_time_left_follows_the_pace() -> None:
    left = TimeLeft()
    assert left.seconds(0.0) is None
    left.note(0.5, 10.0)  # a sweep that goes on begins in the middle
    assert left.seconds(11.0) is None
    left.note(0.6, 20.0)
    assert left.seconds(20.0) == pytest.approx(40.0)
    assert left.seconds(25.0) == pytest.approx(35.0), "it runs down between two pieces of news"
    assert left.seconds(100.0) == 0.0


def test_only_measuring_moves_the_bar() -> None:
    state = MeasuringState()
    state.begin("compare", comparison())
    state.fold(MeasuringStarted("compare-1"), 0.0)
    state.fold(Progress("load", "Loading", 0.9), 0.0)
    assert state.snapshot(0.0).fraction == 0.0
    state.fold(Progress("measure", "a", 0.0), 1.0)
    state.fold(Progress("measure", "b", 0.5), 11.0)
    state.fold(Progress("build", "Preparing", 0.1), 12.0)
    now = state.snapshot(12.0)
    assert (now.fraction, now.progress.phase) == (0.5, "build")
    assert now.seconds_left == pytest.approx(9.0)
    state.fold(MeasuringFinished("compare-1", "finished"), 21.0)
    assert (state.snapshot(30.0).active, state.snapshot(30.0).seconds_left) == (False, None)
