"""All steps of a stored request in columns: what a replay knows before it asks for trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from engine.records import Origin
from workbench import metrics
from workbench.events import RunSummary
from workbench.store.schema import ORIGIN_NAMES
from workbench.view.steps import words
from workbench.view.visible import safe_text

_ORIGINS = {word: int(origin) for origin, word in ORIGIN_NAMES.items()}


def step_columns(steps: pd.DataFrame, tokens: pd.DataFrame) -> dict[str, Any]:
    """Plain JSON: one value per step, and per kept token where said so.

    `start` and `wall` are microseconds, `start` counted from the first step; `stages` the same by
    stage. `accepted` counts nodes, `origin` is that of the last token, `kept` counts tokens and
    `text` and `mark` have one value for each of those; `word` is an index into `words`.
    """
    kept = tokens[tokens["kept"].to_numpy(bool)]
    numbers = steps["step"].to_numpy()
    origins = [_ORIGINS[name] for name in steps["origin"]]
    said = [
        words(int(drafted), int(accepted), Origin(origin))
        for drafted, accepted, origin in zip(
            steps["num_drafted"], steps["num_accepted"], origins, strict=True
        )
    ]
    distinct = list(dict.fromkeys(said))
    place = {sentence: at for at, sentence in enumerate(distinct)}
    per_step = np.bincount(_place(kept["step"].to_numpy(), numbers), minlength=len(numbers))
    return {
        "num_steps": len(steps),
        "start": _microseconds(starts_ns(steps)),
        "wall": _microseconds(steps["wall_ns"].to_numpy()),
        "stages": {name: _microseconds(steps[f"{name}_ns"].to_numpy()) for name in metrics.STAGES},
        "accepted": steps["num_accepted"].tolist(),
        "origin": origins,
        "kept": per_step.tolist(),
        "text": [safe_text(text) if isinstance(text, str) else "" for text in kept["text"]],
        "mark": [_ORIGINS[name] for name in kept["origin"]],
        "words": distinct,
        "word": [place[sentence] for sentence in said],
    }


def starts_ns(steps: pd.DataFrame) -> np.ndarray:
    """When each step began, from the beginning of the first; never falls.

    Steps are placed by the clock that was read as each ended. Where that says nothing (it stands
    still or goes back) they follow each other without a pause.
    """
    wall, end = steps["wall_ns"].to_numpy(np.int64), steps["time_ns"].to_numpy(np.int64)
    if len(wall) == 0:
        return wall
    if np.any(np.diff(end) <= 0):
        end = np.cumsum(wall)
    start = end - wall
    return np.maximum.accumulate(start - start[0])


def request_summary(steps: pd.DataFrame, request: pd.Series | None) -> RunSummary:
    """The counts and times of one request; what would take all its nodes stays empty.

    Times are of whole passes: where one served a batch, they are those of the batch.
    """
    stages = {name: int(steps[f"{name}_ns"].sum()) for name in metrics.STAGES}
    done = request is not None and isinstance(request["finish_reason"], str)
    return RunSummary(
        requests=int(done),
        steps=len(steps),
        drafted=int(steps["num_drafted"].sum()),
        accepted=int(steps["num_accepted"].sum()),
        emitted=int(steps["num_emitted"].sum()),
        kept=int(steps["num_kept"].sum()),
        decode_ns=int(steps["wall_ns"].sum()),
        stages_ns=stages,
        draft_passes=int(steps["draft_passes"].sum()),
        passes=len(steps),
    )


def _place(steps: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Row of each token's step; tokens of steps that were not recorded count with the next."""
    return np.minimum(np.searchsorted(numbers, steps), max(0, len(numbers) - 1))


def _microseconds(nanoseconds: np.ndarray) -> list[int]:
    return np.rint(np.asarray(nanoseconds, float) / 1000).astype(np.int64).tolist()
