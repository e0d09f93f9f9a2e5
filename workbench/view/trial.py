"""A static tree run for real: what was predicted beside what came."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from engine.errors import UserError
from engine.shapes import Shape
from engine.tree import Children
from workbench import metrics
from workbench.events import RunSummary
from workbench.snapshot import ACTIVE, Snapshot
from workbench.spec import RunSpec
from workbench.store.reader import open_run
from workbench.whatif import trees
from workbench.whatif.complete import default_draft
from workbench.whatif.predict import Prediction


@dataclass(slots=True)
class Trial:
    """One press of "Run it for real"."""

    spec: RunSpec
    predicted: Prediction
    summary: RunSummary = field(default_factory=RunSummary)
    plain_step_ns: int | None = None  # right before the real run: its pace may be another
    status: str = "starting"
    message: str = ""  # of what is under way
    run_id: str = ""
    error: str = ""
    #: steps that went as predicted, and all; None before the end, or where bounds were predicted
    agreed: tuple[int, int] | None = None

    def take(self, snapshot: Snapshot) -> None:
        """Follow the run. Compares step by step once it has finished."""
        ended = self.status not in ACTIVE
        self.summary, self.status, self.run_id = snapshot.summary, snapshot.status, snapshot.run_id
        self.plain_step_ns = snapshot.plain_step_ns
        self.message = snapshot.progress.message if snapshot.progress else ""
        self.error = snapshot.error
        if not ended and self.status == "finished" and self.predicted.exact:
            self.agreed = _agreed(self.run_id, self.predicted)

    @property
    def words(self) -> str:
        """How it stands, in a sentence."""
        if self.status in ACTIVE:
            if self.message:
                return f"{self.message}."
            return f"Decoding: {self.summary.kept} tokens so far."
        if self.status != "finished":
            return f"The run was {self.status} after {self.summary.kept} tokens."
        if self.agreed is None and not self.predicted.exact:
            return "Finished. Bounds were predicted; make the ranks exact for a single figure."
        if self.agreed is None:
            return "Finished."
        same, total = self.agreed
        if same == total:
            return f"Every one of {total} steps accepted as many tokens as predicted."
        return (
            f"{same} of {total} steps accepted as many tokens as predicted; another order of "
            "summation can turn near ties of the draft."
        )


def trial_spec(
    run_id: str, shape: Shape, children: Children, folder: Path | None = None
) -> RunSpec:
    """The stored run's spec with this static tree. Raises UserError without a draft model."""
    with open_run(run_id, folder) as reader:
        spec = reader.info.spec
    draft = default_draft(spec)
    if draft is None:
        raise UserError("The run has no draft model; make one with a draft model first.")
    changes: dict[str, Any] = {
        "method": "static-tree",
        "options": {"paths": trees.paths_text(shape)},
        "draft": draft,
        "other_drafts": [],  # what was predicted is one draft model's
        "children": "auto" if spec.temperature == 0.0 else children.value,
        "comparison": None,
        "arm": None,
        "repeats": 1,
    }
    # of a load run, what a run is decoded with
    own = {name: getattr(spec, name) for name in RunSpec.model_fields}
    return RunSpec.model_validate(own | changes)


def figures(trial: Trial) -> pd.DataFrame:
    """A line for prediction and one for the measurement."""
    found, summary = trial.predicted, trial.summary
    low, high = found.low, found.high
    speeds = [found.tokens_per_second(outcome) for outcome in (low, high)]
    gains = [found.speedup(outcome) for outcome in (low, high)]
    gain = metrics.live_speedup(summary, trial.plain_step_ns)
    measured = bool(summary.steps)
    return pd.DataFrame(
        {
            "": ["Predicted", "Measured"],
            "Tokens per step": [
                _range(low.tokens_per_step, high.tokens_per_step, 2),
                f"{summary.tokens_per_step:.2f}" if measured else "–",
            ],
            "Steps": [_range(high.steps, low.steps, 0), str(summary.steps) if measured else "–"],
            "Tokens/s": [
                _range(speeds[0], speeds[1], 0),
                _one(summary.tokens_per_second, 0, measured),
            ],
            "Against plain (estimate)": [
                _range(gains[0], gains[1], 2),
                _one(gain or 0.0, 2, gain is not None),
            ],
            "ms per step": [
                f"{found.step.ms:.1f}" if found.step else "–",
                _one(summary.decode_ns / 1e6 / max(1, summary.passes), 1, measured),
            ],
            "Accepted 0, 1, 2, …": [
                _counts(low.histogram if found.exact else []),
                _counts(summary.histogram),
            ],
        }
    )


def _agreed(run_id: str, predicted: Prediction) -> tuple[int, int] | None:
    """Steps of the stored run that accepted what was predicted, of all; None if it has none."""
    try:
        with open_run(run_id) as reader:
            steps = reader.steps(repeat=0)
    except UserError:
        return None
    same = total = 0
    for request, walk in zip(predicted.requests, predicted.walks, strict=True):
        real = steps.loc[steps["request"] == request, "num_accepted"].tolist()
        thought = walk.low.accepted_S
        total += max(len(real), len(thought))
        same += sum(one == other for one, other in zip(real, thought, strict=False))
    return same, total


def _counts(histogram: list[int]) -> str:
    return ", ".join(map(str, histogram)) or "–"


def _one(value: float, digits: int, known: bool) -> str:
    return f"{value:.{digits}f}" if known else "–"


def _range(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None:
        return "–"
    one, other = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return one if one == other else f"{one}–{other}"
