"""Stored runs whose draft ranks are invented: a static tree over them, recorded like a real one.

Nothing is decoded: tokens are 100, 101, ... and each step's tree holds the true token wherever its
rank path spells the true ranks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.records import FinishReason, Origin, RequestRecord, StageTimes, StepRecord
from engine.requests import Request
from engine.shapes import Shape, from_paths
from engine.tree import tree_from_lists
from engine.verify import Choice, match
from workbench.spec import RunSpec
from workbench.steptext import StepTexts
from workbench.store.schema import RunStatus
from workbench.store.writer import Recorder

NUM_PROMPT = 5
#: ranks that a chain, a wide tree and an unlucky one tell apart
RANKS = [0, 0, 1, 0, 2, 0, 0, 0, 1, 1, 0, 9, 0, 0, 1, 0, 0, 0, 0, 2, 0, 1, 0, 0]


class _Words:
    """Stands for IncrementalText."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def add(self, tokens: list[int]) -> list[str]:
        return [self._words[(token - 100) % len(self._words)] for token in tokens]


def write_run(
    folder: Path,
    paths: str = "0;1;0.0;0.1",
    *,
    ranks: Sequence[int] = RANKS,
    words: Sequence[str] = (" def", " f", "(", "x", ")", ":\n", "    "),
    step_ms: float = 10.0,
    prompt: str = "import os\n",
    plain_ms: float = 6.0,
    **spec: Any,
) -> str:
    """A finished run of one request; `paths` empty makes it a plain one. Returns its id."""
    plain = not paths
    shape = Shape((-1,), (0,)) if plain else from_paths(paths)
    values = {
        "method": "autoregressive" if plain else "static-tree",
        "options": {} if plain else {"paths": paths},
        "draft": None if plain else "pycode-draft",
        "prompt": prompt,
        "max_new_tokens": len(ranks),
    } | spec
    texts = StepTexts(piece=lambda token: f"p{token}", incremental=lambda: _Words(words))
    recorder = Recorder(RunSpec(**values).model_dump(mode="json"), texts=texts, folder=folder)
    recorder.begin(mode="eager", plain_step_ns=int(plain_ms * 1e6), environment={})
    request = Request(0, prompt, tuple(range(NUM_PROMPT)), len(ranks))
    recorder.request_started(request)
    at, step, accepted, drafted = 0, 0, 0, 0
    while at < len(ranks):
        record = _step(shape, ranks, at, step, step_ms)
        recorder.append(record)
        at += len(record.emitted)
        accepted += record.verdict.num_accepted
        drafted += record.tree.num_drafted
        step += 1
    recorder.request_done(
        RequestRecord(
            request=0, question_id="", category="", turn=0, repeat=0, prompt=prompt,
            prompt_ids=list(range(NUM_PROMPT)), token_ids=[100 + i for i in range(len(ranks))],
            text="".join(_Words(words).add([100 + i for i in range(len(ranks))])),
            finish_reason=FinishReason.LENGTH, num_steps=step, num_emitted=at,
            num_drafted=drafted, num_accepted=accepted, prefill_ns=int(40e6),
            decode_ns=int(step * step_ms * 1e6), repetition=0.0,
        )
    )  # fmt: skip
    assert recorder.finish(RunStatus.FINISHED) == RunStatus.FINISHED, recorder.error
    return recorder.run_id


def _step(shape: Shape, ranks: Sequence[int], at: int, step: int, step_ms: float) -> StepRecord:
    depth = shape.depths()
    left = len(ranks) - at - 1
    kept = [node for node in range(shape.num_nodes) if depth[node] <= left]
    true = {0}
    tokens, parents = [99 + at], [-1]
    for node in kept[1:]:
        parent, position = shape.parents_N[node], at + depth[node] - 1
        right = parent in true and ranks[position] == shape.rank_N[node]
        if right:
            true.add(node)
        tokens.append(100 + position if right else 10_000 + 100 * step + node)
        parents.append(parent)
    tree = tree_from_lists(tokens, parents, [0.0] + [-0.5] * (len(tokens) - 1))
    tree.rank_M = np.asarray([shape.rank_N[node] for node in kept], np.int32)
    tree.draft_passes = max(depth[node] for node in kept)
    verdict = match(
        tree, lambda node: Choice(100 + at + int(tree.depth_M[node]), lambda other: 1.0)
    )
    emitted = [int(tree.tokens_M[node]) for node in verdict.path_A[1:]] + [verdict.next_token]
    assert verdict.origin in (Origin.BONUS, Origin.CORRECTION)
    parts = (0.3, 0.02, 0.6, 0.02, 0.03, 0.01, 0.02)
    return StepRecord(
        request=0, step=step, position=NUM_PROMPT + at, tree=tree, verdict=verdict,
        target_logprob_M=np.full(len(tokens), -0.7, np.float32), emitted=emitted,
        num_kept=len(emitted), emitted_logprob=np.full(len(emitted), -0.7, np.float32),
        top2_gap=np.ones(len(emitted), np.float32),
        times=StageTimes(*(int(step_ms * 1e6 * part) for part in parts)), batch_step=step,
        time_ns=int((step + 1) * step_ms * 1e6), budget=shape.num_nodes - 1,
    )  # fmt: skip


def write_ranks(cache: Path, run_id: str, *, ranks: Sequence[int] = RANKS) -> None:
    """The run's ranks as if they had been measured."""
    request = {"tokens": [100 + i for i in range(len(ranks))], "fixed": list(ranks),
               "coupled": [], "logprob": [-0.5] * len(ranks)}  # fmt: skip
    content = {"format": 1, "draft": "pycode-draft", "requests": {"0": request}}
    (cache / "ranks").mkdir(parents=True, exist_ok=True)
    (cache / "ranks" / f"{run_id}.json").write_text(json.dumps(content))
