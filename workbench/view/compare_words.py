"""A comparison, sweep, study or training under way, and how it ended, in words."""

from __future__ import annotations

from typing import NamedTuple

from workbench.comparing.expand import expand
from workbench.comparing.result import CompareSpec
from workbench.jobs import SWEEP, TRAIN, TUNE
from workbench.measuring import MEASURE, Measuring
from workbench.sweeping.spec import SweepSpec
from workbench.training.spec import TrainSpec
from workbench.tuning.spec import TuneSpec
from workbench.view.compare_form import duration
from workbench.view.heads_form import told as training_told
from workbench.view.visible import safe_text

#: what a stop leaves, of jobs that can be gone on with
_RESUMABLE = {
    SWEEP: " Cells that were complete are kept; it can go on.",
    TUNE: " Trials that were finished are kept; it can go on.",
    TRAIN: " The checkpoint is kept; it can go on.",
}


class Told(NamedTuple):
    """What the panel of a measurement says; plain text, not markup."""

    title: str
    detail: str
    fraction: float
    left: str


class Ended(NamedTuple):
    """How a measurement ended, where that is worth a word. `kind`: error, warning or info."""

    kind: str
    title: str
    text: str


def told(measuring: Measuring, *, stopping: bool = False) -> Told:
    """A measurement that is under way."""
    title = what(measuring.spec)
    if stopping:
        return Told(title, "Stopping after this step …", measuring.fraction, "")
    progress = measuring.progress
    if progress is None:
        return Told(title, "Starting the worker …", measuring.fraction, "")
    if measuring.seconds_left is None:
        left = "" if progress.phase == MEASURE else "Nothing is timed yet"
        if measuring.fraction > 0:
            left = f"{measuring.fraction:.0%} done"
    else:
        left = f"{measuring.fraction:.0%} done, {duration(measuring.seconds_left)} left"
    return Told(title, safe_text(progress.message), measuring.fraction, left)


def ended(measuring: Measuring) -> Ended | None:
    """How the last one ended; None where it simply finished, or there was none."""
    name = {SWEEP: "sweep", TUNE: "study", TRAIN: "training"}.get(measuring.kind, "comparison")
    error = safe_text(measuring.error)
    if measuring.wrong_input:
        return Ended("error", f"The {name} was not started", error)
    if measuring.status == "cancelled":
        if measuring.kind in _RESUMABLE:
            return Ended("info", "", f"Stopped.{_RESUMABLE[measuring.kind]}")
        kept = "What was complete is kept." if measuring.result else "Nothing was complete yet."
        return Ended("info", "", f"Stopped. {kept}")
    if measuring.status == "interrupted":
        kept = _RESUMABLE.get(measuring.kind, "")
        return Ended("error", f"The {name} was interrupted", error + kept)
    if measuring.status == "failed":
        return Ended("error", f"The {name} failed", error)
    return None


def what(spec: CompareSpec | TrainSpec | None) -> str:
    """What is measured, in a line: `3 methods on code`, or the sweep's name and size."""
    if spec is None:
        return "Measuring"
    if isinstance(spec, TrainSpec):
        return f"Training {spec.name}: {training_told(spec)}"
    if isinstance(spec, SweepSpec):
        return f"Sweep {spec.name}: {len(spec.cells())} cells"
    if isinstance(spec, TuneSpec):
        return f"Tuning {spec.method} on {safe_text(spec.workload)}: {spec.trials} trials"
    number = len(expand(spec.methods))
    where = ", ".join(safe_text(name) for name in spec.workloads)
    return f"Comparing {number} {'method' if number == 1 else 'methods'} on {where}"
