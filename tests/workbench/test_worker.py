"""The worker process: its life, its death, and what a viewer sees of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import UserError
from engine.records import Origin
from workbench import worker
from workbench.events import Event, RunFinished, StepDone
from workbench.spec import RunSpec
from workbench.store import list_runs, open_run
from workbench.worker import WorkerHandle, death_sentence, worker_settings

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _jobs_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def handle() -> Iterator[WorkerHandle]:
    one = WorkerHandle(job="worker_jobs:scripted")
    yield one
    one.close()


def spec(prompt: str = "fine", tokens: int = 20, **changes: Any) -> RunSpec:
    return RunSpec(prompt=prompt, max_new_tokens=tokens, draft=None, **changes)


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_run_and_what_is_seen_of_it(handle: WorkerHandle) -> None:
    assert handle.snapshot().status == "idle"
    handle.start(spec(tokens=60))
    assert handle.snapshot().status == "starting"
    seen = {"starting"}
    while not handle.wait(0.01):
        seen.add(handle.snapshot().status)
    last = handle.snapshot()
    assert seen | {last.status} >= {"starting", "running", "finished"}
    assert (last.num_steps, last.summary.kept, last.num_done) == (60, 60, 1)
    assert (last.mode, last.plain_step_ns, last.num_requests) == ("eager", 900, 1)
    assert last.progress is None
    assert last.current is not None
    assert last.current.text == "".join(chr(97 + at % 26) for at in range(60))
    assert {token.origin for token in last.current.tokens} == {Origin.BONUS}
    assert [event.record.step for event in last.steps] == list(range(60))
    assert list_runs()[0].run_id == last.run_id
    with open_run(last.run_id) as run:
        assert len(run.steps()) == 60


def test_versions_rise_and_snapshots_stand_still(handle: WorkerHandle) -> None:
    handle.start(spec(tokens=200))
    until(lambda: handle.snapshot().num_steps > 3)
    one = handle.snapshot()
    steps, kept, tokens = len(one.steps), one.summary.kept, len(one.current.tokens)
    until(lambda: handle.version > one.version)
    assert handle.wait(60)
    assert (len(one.steps), one.summary.kept, len(one.current.tokens)) == (steps, kept, tokens)


def test_the_worker_is_kept_for_the_next_run(handle: WorkerHandle) -> None:
    handle.start(spec())
    assert handle.wait(60)
    first, pid = handle.snapshot(), handle.pid
    handle.start(spec(tokens=5))
    assert handle.wait(60)
    assert handle.pid == pid
    assert handle.snapshot().run_id != first.run_id
    assert handle.snapshot().num_steps == 5


def test_stop(handle: WorkerHandle) -> None:
    handle.start(spec(tokens=100_000))
    until(lambda: handle.snapshot().num_steps > 5)
    start = time.monotonic()
    handle.stop()
    assert handle.wait(60)
    assert time.monotonic() - start < 5
    assert handle.snapshot().status == "cancelled"
    assert list_runs()[0].status == "cancelled"
    handle.stop()  # nothing to stop: does nothing, nor does it reach the next run
    handle.start(spec(tokens=10))
    assert handle.wait(60)
    assert handle.snapshot().status == "finished"


def test_one_run_at_a_time(handle: WorkerHandle) -> None:
    handle.start(spec(tokens=100_000))
    with pytest.raises(UserError, match="under way"):
        handle.start(spec())
    handle.stop()
    assert handle.wait(60)


def test_wrong_input_is_told_apart_from_failure(handle: WorkerHandle) -> None:
    handle.start(spec("wrong"))
    assert handle.wait(60)
    last = handle.snapshot()
    assert (last.status, last.error, last.wrong_input) == ("failed", "The prompt is wrong.", True)
    assert list_runs() == []
    handle.start(spec("bug"))
    assert handle.wait(60)
    last = handle.snapshot()
    assert (last.status, last.wrong_input) == ("failed", False)
    assert last.error == "Internal error: ZeroDivisionError: oops"
    handle.start(spec())
    assert handle.wait(60)
    assert handle.snapshot().status == "finished"


@pytest.mark.parametrize(
    ("death", "sentences"),
    [
        ("SIGILL", ["died of SIGILL", "use float32 or set ONEDNN_MAX_CPU_ISA"]),
        ("SIGKILL", ["died of SIGKILL", "memory ran out"]),
        ("SIGSEGV", ["died of SIGSEGV", "--execution eager"]),
        ("exit", ["exit code 3"]),
    ],
)
def test_a_dead_worker_is_named_and_its_run_interrupted(
    handle: WorkerHandle, death: str, sentences: list[str]
) -> None:
    handle.start(spec(death))
    assert handle.wait(60)
    last = handle.snapshot()
    assert last.status == "interrupted"
    for sentence in sentences:
        assert sentence in last.error
    entry = list_runs()[0]
    assert (entry.status, entry.message) == ("interrupted", last.error)
    assert last.num_steps == 3, "what it said before it died is seen"
    with open_run(last.run_id) as run:
        assert run.info.status == "interrupted"
        assert run.info.message == last.error
    handle.start(spec())
    assert handle.wait(60)
    assert handle.snapshot().status == "finished"


def test_death_before_the_run_has_told_its_id(handle: WorkerHandle) -> None:
    handle.start(spec("early"))
    assert handle.wait(60)
    assert handle.snapshot().status == "interrupted"
    assert "SIGILL" in list_runs()[0].message


def test_a_worker_that_dies_between_runs_is_replaced(handle: WorkerHandle) -> None:
    handle.start(spec())
    assert handle.wait(60)
    pid = handle.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: handle.pid is None)
    assert handle.snapshot().status == "finished"
    handle.start(spec())
    assert handle.wait(60)
    assert handle.pid != pid
    assert handle.snapshot().status == "finished"


def test_events_come_in_order_to_a_listener() -> None:
    events: list[Event] = []
    handle = WorkerHandle(job="worker_jobs:scripted", on_event=events.append)
    handle.start(spec(tokens=30))
    assert handle.wait(60)
    handle.close()
    steps = [event.record.step for event in events if isinstance(event, StepDone)]
    assert steps == list(range(30))
    assert isinstance(events[-1], RunFinished)


def test_a_listener_that_fails_stops_the_run() -> None:
    def broken(event: Event) -> None:
        if isinstance(event, StepDone):
            raise BrokenPipeError

    handle = WorkerHandle(job="worker_jobs:scripted", on_event=broken)
    handle.start(spec(tokens=100_000))
    assert handle.wait(60)
    assert handle.snapshot().status == "cancelled"
    handle.close()


def test_closing_cancels_and_ends_the_process(handle: WorkerHandle) -> None:
    handle.start(spec(tokens=100_000))
    until(lambda: handle.snapshot().num_steps > 2)
    pid = handle.pid
    handle.close()
    assert not psutil.pid_exists(pid)
    assert list_runs()[0].status == "cancelled"


_PARENT = """
import time
from workbench.spec import RunSpec
from workbench.worker import WorkerHandle
handle = WorkerHandle(job="worker_jobs:scripted")
handle.start(RunSpec(prompt="fine", max_new_tokens=100_000, draft=None))
while handle.snapshot().num_steps < 3:
    time.sleep(0.01)
print(handle.pid, flush=True)
time.sleep(100)
"""


def test_the_worker_ends_when_its_parent_is_killed() -> None:
    root = HERE.parents[1]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(root)])}
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], env=env, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 30)
    assert list_runs()[0].status == "cancelled"


def test_a_real_pair_in_a_worker(tiny_pair: Any) -> None:
    handle = WorkerHandle()
    wanted = RunSpec(
        method="dynamic-tree", target=tiny_pair.target, draft=tiny_pair.draft, prompt="def f(",
        max_new_tokens=24, execution="eager", ignore_eos=True,
    )  # fmt: skip
    handle.start(wanted)
    assert handle.wait(240)
    last = handle.snapshot()
    assert (last.status, last.error) == ("finished", "")
    assert last.summary.kept == 24
    told = "".join(token.text for token in last.current.tokens)
    assert last.current.done.text.rstrip("\ufffd") == told.rstrip("\ufffd")
    origins = {token.origin for token in last.current.tokens}
    assert Origin.DRAFT in origins
    start = time.monotonic()
    handle.start(wanted)
    assert handle.wait(240)
    assert time.monotonic() - start < 5, "the models were still loaded"
    handle.close()


# --- sentences and settings ---


def test_death_in_words() -> None:
    told = death_sentence(-signal.SIGILL, dtype="bfloat16")
    assert told == (
        "The worker died of SIGILL: this processor cannot run an instruction that bfloat16 matrix "
        "products use here; use float32 or set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16."
    )
    assert "signal 99" in death_sentence(-99)


def test_bfloat16_is_held_to_what_the_processor_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    half = spec(dtype="bfloat16", device="cpu")
    monkeypatch.setattr(worker, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert worker_settings(half) == {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    assert worker_settings(spec(device="cpu")) == {}
    assert worker_settings(spec(dtype="bfloat16", device="cuda:0")) == {}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert worker_settings(half) == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    monkeypatch.setattr(worker, "cpu_flags", lambda: frozenset({"avx2"}))
    assert worker_settings(half) == {}


def test_another_dtype_gets_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    handle = WorkerHandle(job="worker_jobs:scripted")
    handle.start(spec())
    assert handle.wait(60)
    first = handle.pid
    handle.start(spec(dtype="bfloat16", device="cpu"))
    assert handle.wait(60)
    assert handle.pid != first
    environment = psutil.Process(handle.pid).environ()
    assert environment["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_BF16"
    handle.close()
