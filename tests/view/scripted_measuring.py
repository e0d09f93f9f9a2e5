"""A handle that measures by the clock: known speedups, stored where the pages look for them.

Trainings of heads too: their logs grow as those of real ones do.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workbench"))

from made_comparisons import make_comparison
from scripted_runs import FakeHandle
from scripted_training import ScriptedTraining
from scripted_tuning import ScriptedSite, scripted_confirm

from engine.errors import UserError
from workbench.comparing import result
from workbench.comparing.decoders import StoppedError
from workbench.comparing.result import CompareSpec
from workbench.events import MeasuringFinished, MeasuringStarted, Progress
from workbench.jobs import RUN, SWEEP, TRAIN, TUNE, Spec, kind_of, under_way
from workbench.measuring import MeasuringState
from workbench.snapshot import Snapshot
from workbench.spec import RunSpec
from workbench.sweeping.keeping import Sweep, load_sweep, save_sweep, sweep_names
from workbench.sweeping.spec import SweepSpec
from workbench.training.spec import TrainSpec, write_spec
from workbench.tuning.run import tune
from workbench.tuning.spec import TuneSpec
from workbench.view.heads_runs import heads_folder


class MeasuringHandle(FakeHandle):
    """As `FakeHandle`, and comparisons, sweeps and studies of `seconds`, stored when they end."""

    def __init__(self, *, seconds: float = 0.3, **scripted: Any) -> None:
        super().__init__(**scripted)
        self._seconds = seconds
        self._measuring = MeasuringState()
        self._kind = RUN
        self._began = 0.0

    def start(self, spec: Spec) -> None:
        if self.active:
            raise UserError(f"{under_way(self.specs[-1])}; stop it.")
        self._kind = kind_of(spec)
        if isinstance(spec, RunSpec):
            super().start(spec)
            return
        self.specs.append(spec)
        self._began = time.monotonic()
        self._measuring.begin(self._kind, spec)
        named = isinstance(spec, SweepSpec | TuneSpec | TrainSpec)
        name = spec.name if named else "compare-20260101-000000-0000"
        if isinstance(spec, TrainSpec):
            write_spec(spec, heads_folder() / spec.name)
            self._training = ScriptedTraining(spec)
        self._measuring.fold(MeasuringStarted(name))

    def stop(self) -> None:
        if self._kind == RUN:
            super().stop()
            return
        with self._lock:
            if self._measuring.active:
                self._end("cancelled")

    def die(self) -> None:
        """As if the system had ended the worker."""
        self._measuring.fail("interrupted", "The worker died of SIGKILL: memory ran out.")

    @property
    def active(self) -> bool:
        found = self.snapshot()
        return found.active or found.measuring.active

    def snapshot(self) -> Snapshot:
        found = super().snapshot()
        with self._lock:
            self._go_on()
            found.kind, found.measuring = self._kind, self._measuring.snapshot()
        return found

    def _go_on(self) -> None:
        if not self._measuring.active:
            return
        share = (time.monotonic() - self._began) / self._seconds
        if share >= 1:
            self._end("finished")
            return
        if self._kind == TRAIN:
            self._training.go_on(share)
            self._measuring.fold(Progress("measure", "20,480 tokens read, loss 4.100", share))
            return
        said = (
            "Trial 1 of 30: nodes 6" if self._kind == TUNE else "code: prompt 1 of 3, dynamic-tree"
        )
        self._measuring.fold(Progress("measure", said, share))

    def _end(self, status: str) -> None:
        spec = self.specs[-1]
        if self._kind == TRAIN:
            self._training.end("stopped" if status == "cancelled" else status)
            self._measuring.fold(MeasuringFinished(spec.name, status))
            return
        name = {SWEEP: store_sweep, TUNE: store_study}.get(self._kind, store)(spec, status)
        self._measuring.fold(MeasuringFinished(name, status))


def store(spec: CompareSpec, status: str = "finished") -> str:
    """A stored comparison; its id."""
    found = make_comparison(spec, status=status)
    result.save(found)
    return found.comparison_id


def store_sweep(spec: SweepSpec, status: str = "finished", *, done: int | None = None) -> str:
    """A stored sweep, the first `done` cells measured; half of them where it was stopped."""
    cells = spec.cells()
    if done is None:
        done = len(cells) if status == "finished" else len(cells) // 2
    before = load_sweep(spec.name).cells if spec.name in sweep_names() else {}
    found = Sweep(spec, status, "2026-01-01T00:00:00+00:00", cells=dict(before))
    left = [label for label in cells if label not in before]
    if left[: max(0, done - len(before))]:
        part = left[: done - len(before)]
        one = make_comparison(spec.part(part), sweep=spec.name)
        result.save(one)
        found.cells |= dict.fromkeys(part, one.comparison_id)
    found.pid = os.getpid()
    save_sweep(found)
    return spec.name


def store_study(spec: TuneSpec, status: str = "finished", *, trials: int | None = None) -> str:
    """A stored study by the rule of `scripted_tuning`; cut short in its fourth trial if stopped."""
    site = ScriptedSite()

    def stop(number: int) -> None:
        if number > (trials or (spec.trials if status == "finished" else 3)):
            raise StoppedError

    site.before = stop
    known = spec.model_copy(update={"only": ["nodes", "depth"]})
    tune(known, open_site=site, confirm=scripted_confirm)
    return spec.name
