"""Invented records of the real types, for tests of the store."""

from __future__ import annotations

import numpy as np

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
from engine.tree import Children, tree_from_lists
from workbench.steptext import StepTexts

NAN = np.float32(np.nan)


class Spelled:
    """Stands for IncrementalText."""

    def add(self, tokens: list[int]) -> list[str]:
        return [f"w{token} " for token in tokens]


def texts() -> StepTexts:
    return StepTexts(piece=lambda token: f"p{token}", incremental=Spelled)


def step(
    number: int, *, request: int = 0, batch_step: int | None = None, kept: int | None = None
) -> StepRecord:
    """Seven nodes, of which one was pruned:

    0 ── 1 ✓ ── 3 ✗
      │      └─ 4 ✓
      └─ 2 not reached ── 5 not reached         6 pruned
    """
    tree = tree_from_lists(
        [10, 11, 12, 13, 14, 15, 16],
        [-1, 0, 0, 1, 1, 2, 2],
        [0.0, -0.1, -2.0, -0.5, -1.5, -0.7, -9.0],
        children=Children.COUPLED,
    )
    tree.num_nodes = 6
    tree.round_pruned_M[6] = 2
    tree.draft_passes = 3
    fate = [Fate.ROOT, Fate.ACCEPTED, Fate.NOT_REACHED, Fate.REJECTED, Fate.ACCEPTED,
            Fate.NOT_REACHED]  # fmt: skip
    verdict = Verdict(
        path_A=[0, 1, 4],
        next_token=20 + number,
        origin=Origin.BONUS,
        fate_N=np.array(fate, np.uint8),
        accept_prob_N=np.array([NAN, 0.9, NAN, 0.25, 0.5, NAN], np.float32),
    )
    emitted = [11, 14, 20 + number]
    return StepRecord(
        request=request,
        step=number,
        position=5 + 3 * number,
        tree=tree,
        verdict=verdict,
        target_logprob_M=np.array([-0.3, -0.2, -3.0, -1.0, -0.9, -np.inf, NAN], np.float32),
        emitted=emitted,
        num_kept=len(emitted) if kept is None else kept,
        emitted_logprob=np.array([-0.2, -0.9, -0.4], np.float32),
        top2_gap=np.array([1.0, 0.1, 2.0], np.float32),
        times=StageTimes(1000, 10, 5000, 20, 30, 4, 6),
        batch_step=number if batch_step is None else batch_step,
        time_ns=6070 * (number + 1),
        budget=6,
    )


def request(index: int = 0, *, prompt: str = "once", repeat: int = 0) -> Request:
    return Request(
        index=index,
        prompt=prompt,
        prompt_ids=(1, 2, 3),
        max_new_tokens=9,
        question_id=f"q{index}",
        category="prose",
        repeat=repeat,
    )


def done(index: int = 0, *, text: str = "upon a time", repeat: int = 0) -> RequestRecord:
    return RequestRecord(
        request=index,
        question_id=f"q{index}",
        category="prose",
        turn=0,
        repeat=repeat,
        prompt="once",
        prompt_ids=[1, 2, 3],
        token_ids=list(range(16)),
        text=text,
        finish_reason=FinishReason.LENGTH,
        num_steps=2,
        num_emitted=6,
        num_drafted=10,
        num_accepted=4,
        prefill_ns=700,
        decode_ns=12_140,
        repetition=0.25,
    )


SPEC = {"method": "speculative", "prompt": "once", "seed": 7}
