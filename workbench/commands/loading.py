"""Serving a load from the command line: here or in a worker, with Ctrl-C, progress and figures."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import UserError
from workbench.commands.runner import CANCELLED_CODE, on_interrupt
from workbench.events import Event, LoadFinished, LoadStarted
from workbench.events import Progress as Said
from workbench.loading import wording
from workbench.loading.spec import LoadSpec
from workbench.loading.state import Loading, LoadState
from workbench.store.schema import RunStatus
from workbench.terminal import complain, err, one_line, out, print_json, say

_EVERY_S = 0.25


def load_and_print(spec: LoadSpec, *, as_json: bool, save: Path | None) -> int:
    """Serve `spec`, show it, and return the exit code. Raises UserError for wrong input."""
    from workbench.jsonfiles import write_text

    if save is not None:
        write_text(save, "", "The figures")  # before an hour is spent
    stop = threading.Event()
    in_worker = spec.dtype != "float32" and not spec.device.startswith("cuda")
    with on_interrupt(stop), _progress(spec) as take:
        finished = (_in_worker if in_worker else _here)(spec, take, stop)
    found = as_object(spec, finished)
    if save is not None:
        write_text(save, json.dumps(found, indent=2) + "\n", "The figures")
    _show(spec, finished, found, as_json=as_json)
    if finished.status == RunStatus.CANCELLED:
        kept = f"; what was served is in run {finished.run_id}" if finished.run_id else ""
        say(f"Stopped{kept}.")
        return CANCELLED_CODE
    if finished.status != RunStatus.FINISHED:
        kept = f" Run {finished.run_id} holds what was served before." if finished.run_id else ""
        complain(f"The run {finished.status}: {finished.message}{kept}")
        return 1
    return 0


def as_object(spec: LoadSpec, finished: LoadFinished) -> dict[str, Any]:
    """What `draftree load --json` prints and `--save` writes."""
    return {
        "run": finished.run_id,
        "status": str(finished.status),
        "message": finished.message,
        "spec": spec.model_dump(mode="json"),
        "metrics": finished.metrics,
    }


def _show(spec: LoadSpec, finished: LoadFinished, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not finished.metrics:
        return
    from workbench.loading.metrics import metrics_from_json
    from workbench.loading.table import rendered

    slots = spec.all_slots
    for one in rendered(metrics_from_json(finished.metrics), slots=slots):
        out().print(one)
    out().print(f"run {finished.run_id}   draftree show {finished.run_id}")


def _here(spec: LoadSpec, emit: Callable[[Event], None], stop: threading.Event) -> LoadFinished:
    from workbench.loading.run import execute

    return execute(spec, emit, stop.is_set)


def _in_worker(
    spec: LoadSpec, emit: Callable[[Event], None], stop: threading.Event
) -> LoadFinished:
    """Half precision on a CPU may die of an illegal instruction; a worker's death is told."""
    from workbench.worker import WorkerHandle

    handle = WorkerHandle(on_event=emit)
    try:
        handle.start(spec)
        while not handle.wait(0.1):
            if stop.is_set():
                handle.stop()
        last = handle.snapshot().loading
    finally:
        handle.close()
    if last.wrong_input:
        raise UserError(last.error)
    return LoadFinished(last.run_id, last.status, last.metrics, last.error)


@contextmanager
def _progress(spec: LoadSpec) -> Iterator[Callable[[Event], None]]:
    """A bar with counts, rate and time left in a terminal; elsewhere a line for each phase."""
    state = LoadState()
    state.begin(spec)
    if not err().is_terminal:
        phases: list[str] = []

        def tell(event: Event) -> None:
            if isinstance(event, Said) and [event.phase] != phases[-1:]:
                phases.append(event.phase)
                say(event.message)
            elif isinstance(event, LoadStarted):
                say(f"Serving; run {event.run_id}")

        yield tell
        return
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=20), console=err(), transient=True
    ) as bar:
        task = bar.add_task("", total=None)
        shown_at = 0.0

        def show(event: Event) -> None:
            nonlocal shown_at
            state.fold(event)
            if time.monotonic() - shown_at < _EVERY_S:
                return
            shown_at = time.monotonic()
            now = state.snapshot()
            text = now.progress.message if now.progress else progress_line(now)
            total = None if now.fraction is None else 1.0
            bar.update(task, description=one_line(text, 110), total=total, completed=now.fraction)

        yield show


def progress_line(now: Loading) -> str:
    """`12 of 40 requests, 3 waiting, 5 running, 118 tokens/s, ttft 220 ms, 0:21 left`."""
    counts = now.counts
    of = f" of {now.num_requests}" if now.num_requests else ""
    parts = [
        f"{counts.ended}{of} requests",
        f"{counts.waiting} waiting",
        f"{counts.running} running",
        f"{now.output_throughput:.0f} tokens/s",
    ]
    if "ttft" in now.latencies:
        parts.append(f"ttft {wording.shown_ms(now.latencies['ttft'].median)}")
    if now.seconds_left is not None:
        parts.append(f"{wording.shown_seconds(now.seconds_left)} left")
    return ", ".join(parts)
