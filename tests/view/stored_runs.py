"""Stored runs of invented steps, written by the real recorder: for replay, pickers, benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scripted_runs import WORDS, random_step

from engine.records import (
    Fate,
    FinishReason,
    Origin,
    RequestRecord,
    StageTimes,
    StepRecord,
    Verdict,
)
from engine.requests import Request
from engine.tree import tree_from_lists
from workbench.spec import RunSpec
from workbench.steptext import StepTexts
from workbench.store.schema import RunStatus
from workbench.store.writer import Recorder

PROMPT = "def f(x):\n"
NUM_PROMPT = 5


def piece(token: int) -> str:
    """The token for the eye, as the scripted runs spell it."""
    return WORDS[token // 1000 % len(WORDS)]


class Spelled:
    """Stands for IncrementalText."""

    def add(self, tokens: list[int]) -> list[str]:
        return [
            piece(t).replace("·", " ").replace("\\n", "\n").replace("\\t", "\t") for t in tokens
        ]


def store_run(
    folder: Path,
    requests: Sequence[Sequence[StepRecord]],
    *,
    prompt: str | None = PROMPT,
    status: RunStatus | None = RunStatus.FINISHED,
    texts: StepTexts | None = None,
    **spec: Any,
) -> str:
    """Store one run with these steps of each request; returns its id.

    `status` None leaves it as a killed process does: committed, but never ended.
    """
    fields = {"prompt": prompt} | spec
    recorder = Recorder(
        RunSpec(**fields).model_dump(mode="json"),
        texts=texts or StepTexts(piece=piece, incremental=Spelled),
        folder=folder,
        flush_s=60.0,
    )
    recorder.begin(mode="eager", plain_step_ns=6_000_000, environment={})
    for number, steps in enumerate(requests):
        recorder.request_started(_request(number, prompt))
        for step in steps:
            recorder.append(replace(step, request=number))
        if status is RunStatus.FINISHED:
            recorder.request_done(_done(number, prompt, steps))
    if status is None:
        recorder.flush()
        recorder._stop.set()
        recorder._thread.join()
        recorder._connection.close()
    else:
        recorder.finish(status, "" if status is RunStatus.FINISHED else "It was ended in a test.")
    assert recorder.error is None, recorder.error
    return recorder.run_id


def in_order(records: Sequence[StepRecord]) -> list[StepRecord]:
    """The same steps one after the other: numbers, positions and clock as a request has them."""
    found, position, clock = [], NUM_PROMPT, 0
    for number, record in enumerate(records):
        clock += record.times.wall
        found.append(
            replace(record, step=number, batch_step=number, position=position, time_ns=clock)
        )
        position += record.num_kept
    return found


def random_steps(count: int, *, num_nodes: int = 12, seed: int = 0) -> list[StepRecord]:
    """Steps with trees of `num_nodes` and a few pruned nodes, times that vary."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        record = random_step(rng, number, num_nodes, num_pruned=3).record
        factor = float(rng.uniform(0.7, 1.6))
        times = StageTimes(*(int(spent * factor) for spent in record.times))
        records.append(replace(record, times=times))
    return in_order(records)


def steps_writing(tokens: Sequence[int], sizes: Sequence[int]) -> list[StepRecord]:
    """Steps that write just these tokens, `sizes` of them at a time; each drafts one wrong sibling
    and ends in a bonus, or in a correction where nothing was accepted."""
    records, at = [], 0
    for number, size in enumerate(sizes):
        emitted = list(tokens[at : at + size])
        at += size
        records.append(_writing(number, emitted))
    assert at == len(tokens), "the sizes must add up"
    return in_order(records)


def _writing(number: int, emitted: list[int]) -> StepRecord:
    accepted = emitted[:-1]
    nodes = len(accepted) + 2
    tree = tree_from_lists(
        [0, *accepted, 7], [-1, *range(len(accepted)), 0], [0.0, *[-0.2] * len(accepted), -2.5]
    )
    fate = [Fate.ROOT, *[Fate.ACCEPTED] * len(accepted)]
    fate.append(Fate.NOT_REACHED if accepted else Fate.REJECTED)
    origin = Origin.BONUS if accepted else Origin.CORRECTION
    path = list(range(len(accepted) + 1))
    unknown = np.full(nodes, np.nan, np.float32)
    return StepRecord(
        request=0, step=number, position=0, tree=tree,
        verdict=Verdict(path, emitted[-1], origin, np.array(fate, np.uint8), unknown),
        target_logprob_M=np.full(nodes, -0.5, np.float32), emitted=emitted,
        num_kept=len(emitted), emitted_logprob=np.full(len(emitted), -0.5, np.float32),
        top2_gap=np.full(len(emitted), 1.0, np.float32),
        times=StageTimes(2_000_000, 100_000, 6_000_000, 90_000, 80_000, 40_000, 20_000),
    )  # fmt: skip


def _request(number: int, prompt: str | None) -> Request:
    return Request(
        prompt_ids=list(range(NUM_PROMPT)), max_new_tokens=4096, prompt=prompt or "", index=number,
        question_id=f"q{number}", category="code",
    )  # fmt: skip


def _done(number: int, prompt: str | None, steps: Sequence[StepRecord]) -> RequestRecord:
    kept = [token for step in steps for token in step.emitted[: step.num_kept]]
    return RequestRecord(
        request=number, question_id=f"q{number}", category="code", turn=0, repeat=0,
        prompt=prompt or "", prompt_ids=list(range(NUM_PROMPT)), token_ids=kept,
        text="".join(Spelled().add(kept)), finish_reason=FinishReason.LENGTH,
        num_steps=len(steps), num_emitted=sum(len(step.emitted) for step in steps),
        num_drafted=sum(step.tree.num_drafted for step in steps),
        num_accepted=sum(step.verdict.num_accepted for step in steps),
        prefill_ns=20_000_000, decode_ns=sum(step.times.wall for step in steps), repetition=0.0,
    )  # fmt: skip
