"""Samples for a report: what an arm wrote, and a few of its draft trees."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.events import StepDone
from workbench.report.content import Piece, Sample, Tree
from workbench.store.reader import RunReader
from workbench.view.steps import step_layout, step_words
from workbench.view.visible import safe_text

_PROMPT_TAIL = 400
_MOST_TOKENS = 300
#: a still picture is not zoomed into: branches beyond this many boxes are folded
_FOLD_ABOVE = 48


def sample_text(run: RunReader, arm: str) -> Sample | None:
    """The first finished request's output, every token with its origin; None without tokens."""
    requests = run.requests().dropna(subset=["finish_reason"])
    if requests.empty:
        return None
    first = requests.iloc[0]
    request = int(first["request"])
    tokens = run.tokens(request=request, repeat=int(first["repeat"]))
    tokens = tokens[tokens["kept"].astype(bool)].head(_MOST_TOKENS)
    if tokens.empty:
        return None
    prompt = str(first["prompt"])
    tail = prompt[-_PROMPT_TAIL:]
    return Sample(
        heading=f"What {arm} wrote for prompt {safe_text(str(first['question_id']))}".rstrip(),
        prompt=("… " if len(tail) < len(prompt) else "") + safe_text(tail),
        pieces=[
            Piece(safe_text(text), origin)
            for text, origin in zip(tokens["text"], tokens["origin"], strict=True)
        ],
    )


def sample_trees(run: RunReader, arm: str) -> list[Tree]:
    """A few telling steps of the first request: the most accepted, a correction, the largest."""
    steps = run.steps(repeat=0)
    steps = steps[steps["num_drafted"] > 0]
    if steps.empty:
        return []
    first = steps[steps["request"] == steps["request"].min()]
    pieces = run.pieces()
    trees = []
    for at in _telling(first):
        row = first.iloc[at]
        step = _step(run, int(row["request"]), int(row["step"]), pieces)
        said = step_words(step)
        trees.append(
            Tree(
                heading=f"Step {int(row['step'])} of {arm}",
                reading=said[0].upper() + said[1:] + ".",
                laid_out=step_layout(step, fold_above=_FOLD_ABOVE),
            )
        )
    return trees


def _telling(steps: pd.DataFrame) -> list[int]:
    """Places of the steps worth a look, in the order of decoding, each once."""
    accepted = steps["num_accepted"].to_numpy()
    corrected = (steps["origin"] == "correction").to_numpy()
    most = int(accepted.argmax())
    missed = int(np.where(corrected, accepted, accepted.max() + 1).argmin())
    largest = int(steps["num_drafted"].to_numpy().argmax())
    return sorted({most, missed, largest})


def _step(run: RunReader, request: int, step: int, pieces: dict[int, str]) -> StepDone:
    record = run.step_record(request, step)
    return StepDone(
        record=record,
        pieces_M=[pieces.get(int(token), str(token)) for token in record.tree.tokens_M],
        emitted_text=[pieces.get(token, str(token)) for token in record.emitted],
        next_piece=pieces.get(record.verdict.next_token, ""),
    )
