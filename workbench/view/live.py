"""A run as the view sees it: under way, over, or the example before there was any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workbench.events import Progress, RunSummary, StepDone
from workbench.jobs import RUN, Spec
from workbench.snapshot import IDLE, Snapshot
from workbench.spec import RunSpec

EXAMPLE = "example"


class Handle(Protocol):
    """What the pages need of `workbench.worker.WorkerHandle`."""

    @property
    def active(self) -> bool: ...
    def start(self, spec: Spec) -> None: ...
    def stop(self) -> None: ...
    def snapshot(self) -> Snapshot: ...


@dataclass(frozen=True, slots=True)
class Live:
    """Plain values of one run. `steps` are the recent ones of `num_steps`."""

    status: str = IDLE  # idle, example, starting, running, or a RunStatus
    active: bool = False
    stopping: bool = False  # asked to end, and not there yet
    run_id: str = ""
    spec: RunSpec | None = None
    mode: str = ""  # eager or compiled
    note: str = ""  # what people should know of how it is run
    prompt: str = ""
    progress: Progress | None = None
    steps: Sequence[StepDone] = ()
    num_steps: int = 0
    tokens: Sequence[tuple[str, int]] = ()  # all kept ones as text with their `Origin`
    summary: RunSummary = field(default_factory=RunSummary)
    plain_step_ns: int | None = None
    error: str = ""  # a sentence for people
    wrong_input: bool = False  # the error is about the spec; nothing was decoded


def current(handle: Handle, *, stopping: bool = False) -> Live:
    """What there is to see now: the handle's run, or the stored example before the first.

    `stopping` says that whoever looks has pressed Stop.
    """
    busy = handle.active  # asked first: a run that ends in between is drawn once more
    snapshot = handle.snapshot()
    busy = busy and snapshot.kind == RUN
    if snapshot.status == IDLE and not busy:
        from workbench.view.example import example

        return example()
    return from_snapshot(snapshot, busy=busy, stopping=stopping)


def from_snapshot(snapshot: Snapshot, *, busy: bool = False, stopping: bool = False) -> Live:
    """A snapshot in the view's words."""
    views = list(snapshot.requests.values())
    active = busy or snapshot.active
    return Live(
        status=snapshot.status,
        active=active,
        stopping=active and stopping,
        run_id=snapshot.run_id,
        spec=snapshot.spec,
        mode=snapshot.mode,
        note=snapshot.note,
        prompt=views[0].prompt if views else (snapshot.spec and snapshot.spec.prompt) or "",
        progress=snapshot.progress,
        steps=snapshot.steps,
        num_steps=snapshot.num_steps,
        tokens=[(t.text, int(t.origin)) for view in views for t in view.tokens if t.kept],
        summary=snapshot.summary,
        plain_step_ns=snapshot.plain_step_ns,
        error=snapshot.error,
        wrong_input=snapshot.wrong_input,
    )
