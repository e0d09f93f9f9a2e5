"""A handle whose load runs follow a script: rows of `scripted_load`, told as its clock passes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scripted_load import Load, scripted_load, store_load
from scripted_measuring import MeasuringHandle

from engine.paths import runs_folder
from engine.serving.trace import ArrivalRow
from workbench.events import LoadFinished, LoadStarted
from workbench.jobs import LOAD, Spec
from workbench.loading.metrics import of_rows
from workbench.loading.spec import LoadSpec
from workbench.loading.state import LoadState
from workbench.snapshot import Snapshot

RUN_ID = "20260101-000000-0000"  # of the run while it is under way


class ServingHandle(MeasuringHandle):
    """As `MeasuringHandle`, and load runs of `seconds` that are stored when they end.

    With `seconds` None a test moves the clock itself: `go_on(0.5)` tells half of the rows.
    """

    def __init__(self, *, seconds: float | None = None, **scripted: Any) -> None:
        super().__init__(seconds=seconds or 0.3, **scripted)
        self._span = seconds
        self._load_state = LoadState()
        self._load = Load([], [], [])
        self._told = 0.0

    def start(self, spec: Spec) -> None:
        if not isinstance(spec, LoadSpec):
            super().start(spec)
            return
        self.specs.append(spec)
        self._kind, self._began, self._told = LOAD, time.monotonic(), 0.0
        self._load = scripted_load(spec.requests or 40, slots=spec.slots, ranks=1)
        self._load_state.begin(spec)
        self._load_state.fold(
            LoadStarted(RUN_ID, "eager", len(self._load.arrivals), spec.slots, ("",))
        )

    def stop(self) -> None:
        if self._kind == LOAD and self._load_state.active:
            self._finish("cancelled")
        else:
            super().stop()

    def go_on(self, share: float) -> None:
        """Tell what happens until so much of the run is over."""
        if not self._load_state.active:
            return
        end = max(tick.row.end_ns for tick in self._load.ticks)
        was, self._told = self._told, share
        low, high = was * end, share * end
        for row in self._load.arrivals:
            for at, told in _stages(row):
                if low < at <= high or (at == 0 and was == 0):
                    self._load_state.fold(told)
        for tick in self._load.ticks:
            if low < tick.row.end_ns <= high:
                self._load_state.fold(tick)
        for lane in self._load.lanes:
            if low < lane.end_ns <= high:
                self._load_state.fold(lane)
        if share >= 1:
            self._finish("finished")

    @property
    def active(self) -> bool:
        return self._load_state.active or super().active

    def snapshot(self) -> Snapshot:
        if self._load_state.active and self._span:
            self.go_on(min(1.0, (time.monotonic() - self._began) / self._span))
        found = super().snapshot()
        found.loading = self._load_state.snapshot()
        return found

    def _finish(self, status: str) -> None:
        end = max((t.row.end_ns for t in self._load.ticks), default=0) * self._told
        ticks = [tick for tick in self._load.ticks if tick.row.end_ns <= end]
        rows = [
            told[-1][1] for row in self._load.arrivals
            if (told := [(at, row) for at, row in _stages(row) if at <= end])
        ]  # fmt: skip
        kept = Load(rows, ticks, [lane for lane in self._load.lanes if lane.end_ns <= end])
        fields = self.specs[-1].model_dump(exclude={"workload", "prompt"})
        run_id = store_load(Path(runs_folder()), kept, status=status, **fields)
        metrics = of_rows(kept.arrivals, kept.ticks).as_json()
        self._load_state.fold(LoadFinished(run_id, status, metrics))


def _stages(row: ArrivalRow) -> list[tuple[int, ArrivalRow]]:
    """A request as it stood at each change, by time."""
    blank = row._replace(
        slot=None, admitted_ns=None, prefilled_ns=None, first_token_ns=None, ended_ns=None,
        num_kept=0, reason=None, message="",
    )  # fmt: skip
    found = [(row.arrival_ns, blank)]
    if row.admitted_ns is not None:
        blank = blank._replace(
            slot=row.slot, admitted_ns=row.admitted_ns, prefilled_ns=row.prefilled_ns
        )
        found.append((row.prefilled_ns, blank))
    if row.first_token_ns is not None:
        found.append((row.first_token_ns, blank._replace(first_token_ns=row.first_token_ns)))
    if row.ended_ns is not None:
        found.append((row.ended_ns, row))
    return found
