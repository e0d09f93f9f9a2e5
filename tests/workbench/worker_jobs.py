"""Jobs for a worker process that go wrong in chosen ways. Named in tests as `worker_jobs:NAME`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from engine.records import FinishReason, Origin, RequestRecord, StageTimes, StepRecord, Verdict
from engine.tree import root_only
from workbench import metrics
from workbench.events import (
    MeasuringFinished,
    MeasuringStarted,
    Progress,
    RequestDone,
    RequestStarted,
    RunFinished,
    RunStarted,
    RunSummary,
    StepDone,
)
from workbench.spec import RunSpec
from workbench.steptext import StepTexts
from workbench.store import Recorder, RunStatus


class _Letters:
    def add(self, tokens: list[int]) -> list[str]:
        return [chr(97 + token % 26) for token in tokens]


def plain_step(number: int) -> StepRecord:
    verdict = Verdict([0], number, Origin.BONUS, np.zeros(1, np.uint8), np.zeros(1, np.float32))
    return StepRecord(
        request=0, step=number, position=1 + number, tree=root_only(number - 1 if number else 0),
        verdict=verdict, target_logprob_M=np.zeros(1, np.float32), emitted=[number], num_kept=1,
        emitted_logprob=np.zeros(1, np.float32), top2_gap=np.zeros(1, np.float32),
        times=StageTimes(score=1000), batch_step=number,
    )  # fmt: skip


def scripted(
    spec: RunSpec,
    emit: Callable[[Any], None],
    should_stop: Callable[[], bool],
    *,
    runs: Path | None = None,
) -> RunFinished:
    """Emits `max_new_tokens` tokens. The prompt says what goes wrong, at the third."""
    if spec.prompt == "wrong":
        raise UserError("The prompt is wrong.")
    texts = StepTexts(piece=str, incremental=_Letters)
    recorder = Recorder(spec.model_dump(mode="json"), texts=texts, folder=runs)
    emit(Progress("load", "Loading", 0.5))
    if spec.prompt == "early":
        misbehave("SIGILL")
    recorder.begin(mode="eager", plain_step_ns=900, environment={"pid": os.getpid()})
    emit(RunStarted(recorder.run_id, "eager", 900, 1))
    emit(RequestStarted(0, "", 0, spec.prompt or ""))
    summary, status = RunSummary(), RunStatus.FINISHED
    for number in range(spec.max_new_tokens):
        if should_stop():
            status = RunStatus.CANCELLED
            break
        record = plain_step(number)
        recorder.append(record)
        metrics.add_step(summary, record)
        emit(StepDone(record, [str(number)], [chr(97 + number % 26)]))
        if number == 2:
            time.sleep(0.2)  # the events get out
            misbehave(spec.prompt or "")
        time.sleep(0.002)
    tokens = list(range(summary.kept))
    text = "".join(chr(97 + token % 26) for token in tokens)
    done = RequestRecord(
        0, "", "", 0, 0, spec.prompt or "", [0], tokens, text, FinishReason.LENGTH,
        summary.steps, summary.emitted, 0, 0, 5, summary.decode_ns, 0.0,
    )  # fmt: skip
    metrics.add_request(summary, done)
    recorder.request_done(done)
    emit(RequestDone(done))
    finished = RunFinished(recorder.run_id, recorder.finish(status), summary)
    emit(finished)
    return finished


def measuring(
    spec: Any,
    emit: Callable[[Any], None],
    should_stop: Callable[[], bool],
    *,
    runs: Path | None = None,
) -> None:
    """Runs as `scripted`; comparisons of `repeats` rounds, whose first workload goes wrong."""
    if isinstance(spec, RunSpec):
        scripted(spec, emit, should_stop, runs=runs)
        return
    what = spec.workloads[0]
    if what == "wrong":
        raise UserError("The workload is wrong.")
    emit(MeasuringStarted("compare-1"))
    emit(Progress("load", "Loading", 0.9))
    arm = Recorder({"method": "autoregressive"}, texts=None, folder=runs)
    arm.begin(mode="eager", plain_step_ns=None, environment={})
    status = "finished"
    for number in range(spec.repeats):
        if should_stop():
            status = "cancelled"
            break
        emit(Progress("measure", f"round {number}", number / spec.repeats))
        if number == 2:
            time.sleep(0.2)  # the events get out
            misbehave(what)
        time.sleep(0.005)
    run_id = arm.run_id
    emit(RunFinished(run_id, arm.finish(RunStatus(status)), RunSummary()))
    emit(MeasuringFinished("compare-1", status))


def misbehave(prompt: str) -> None:
    if prompt.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[prompt])
    elif prompt == "exit":
        os._exit(3)
    elif prompt == "bug":
        raise ZeroDivisionError("oops")
