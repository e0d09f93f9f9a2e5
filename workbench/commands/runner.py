"""Running a spec from the command line: here or in a worker, with Ctrl-C, text and figures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import UserError
from workbench.commands.printer import Collector, JsonPrinter, StreamPrinter
from workbench.events import Event, RunFinished
from workbench.spec import RunSpec
from workbench.store.schema import RunStatus
from workbench.terminal import complain, say

CANCELLED_CODE = 130
_EXIT_CODES = {RunStatus.FINISHED: 0, RunStatus.CANCELLED: CANCELLED_CODE}


def run_and_print(spec: RunSpec, *, as_json: bool) -> int:
    """Run `spec`, show it, and return the exit code. Raises UserError for wrong input."""
    printer: Collector = JsonPrinter(spec) if as_json else StreamPrinter(spec)
    stop = threading.Event()
    with on_interrupt(stop), printer:
        runner = _in_worker if _wants_worker(spec) else _here
        finished = runner(spec, printer.take, stop)
    printer.finish(finished)
    if finished.status == RunStatus.CANCELLED:
        kept = f"; what was decoded is in run {finished.run_id}" if finished.run_id else ""
        say(f"Stopped{kept}.")
    elif finished.status != RunStatus.FINISHED:
        kept = f" Run {finished.run_id} holds what was decoded before." if finished.run_id else ""
        complain(f"The run {finished.status}: {finished.message}{kept}")
    return _EXIT_CODES.get(RunStatus(finished.status), 1)


@contextmanager
def on_interrupt(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stop`; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("Stopping after this step; press Ctrl-C again to break off.")

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _wants_worker(spec: RunSpec) -> bool:
    """Half precision on a CPU may die of an illegal instruction; a worker's death is told."""
    return spec.dtype != "float32" and not spec.device.startswith("cuda")


def _here(spec: RunSpec, emit: Callable[[Event], None], stop: threading.Event) -> RunFinished:
    from workbench.job import execute

    return execute(spec, emit, stop.is_set)


def _in_worker(spec: RunSpec, emit: Callable[[Event], None], stop: threading.Event) -> RunFinished:
    from workbench.worker import WorkerHandle

    handle = WorkerHandle(on_event=emit)
    try:
        handle.start(spec)
        while not handle.wait(0.1):
            if stop.is_set():
                handle.stop()
        last = handle.snapshot()
    finally:
        handle.close()
    if last.wrong_input:
        raise UserError(last.error)
    return RunFinished(last.run_id, last.status, last.summary, last.error)
