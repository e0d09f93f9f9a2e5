"""The worker seen from the app: start, stop, snapshot. The engine never runs in this process.

A child of its own program (`python -m workbench.worker_process`) rather than a multiprocessing
child: that would import the parent's `__main__` again, which under Streamlit is the app's script.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import UserError
from workbench.environment import cpu_flags
from workbench.events import Event
from workbench.jobs import LOAD, RUN, Spec, kind_of, under_way
from workbench.loading.spec import LoadSpec
from workbench.loading.state import LoadState
from workbench.measuring import MeasuringState
from workbench.snapshot import LiveState, Snapshot
from workbench.spec import RunSpec
from workbench.store.index import list_runs, mark_interrupted
from workbench.store.schema import RunStatus
from workbench.training.spec import TrainSpec

logger = logging.getLogger(__name__)

_ISA = "ONEDNN_MAX_CPU_ISA"
_ISA_WITHOUT_AMX = "AVX512_CORE_BF16"
_EXIT_S = 5.0
#: runs among which those of a process which has just died are looked for
_RECENT = 64

#: what the death of a worker by a signal usually means, and what to try
SIGNAL_HINTS = {
    "SIGILL": "this processor cannot run an instruction that {dtype} matrix products use here; use "
    f"float32 or set {_ISA}={_ISA_WITHOUT_AMX}",
    "SIGKILL": "most often the system ended it because memory ran out; use a smaller model, batch "
    "or dtype",
    "SIGSEGV": "compiled code crashed; try --execution eager",
    "SIGBUS": "a file or memory page could not be read; check the disk, or try again",
    "SIGABRT": "a library gave up; its message stands in the log",
    "SIGFPE": "compiled code crashed; try --execution eager",
    "SIGTERM": "it was ended from outside",
}


class WorkerHandle:
    """One worker process, started when first needed and kept with its models for the next job.

    It does one job at a time, of whichever kind: none disturbs another's times.
    Safe to use from several threads. `on_event` is called for each event, from another thread.
    """

    def __init__(
        self,
        *,
        runs: Path | None = None,
        on_event: Callable[[Event], None] | None = None,
        job: str = "workbench.jobs:execute",
    ) -> None:
        """`runs` is where runs are stored; `job` is the function that works (for tests)."""
        self._runs, self._on_event, self._job = runs, on_event, job
        self._changed = threading.Condition()
        self._state = LiveState()
        self._measuring = MeasuringState()
        self._loading = LoadState()
        self._spec: Spec | None = None  # of the job started last
        self._kind = RUN
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._settings: dict[str, str] = {}
        self._number = 0  # of the job started last
        self._busy = False

    def start(self, spec: Spec) -> None:
        """Begin a job; returns at once. Raises UserError while another one is under way."""
        with self._changed:
            if self._busy and self._spec is not None:
                raise UserError(f"{under_way(self._spec)}; stop it, or wait until it has ended.")
            settings = worker_settings(spec)
            if self._process is not None and (not self._alive() or settings != self._settings):
                self._end_process()
            if self._process is None:
                self._spawn(settings)
            self._number += 1
            self._busy = True
            self._spec, self._kind = spec, kind_of(spec)
            if isinstance(spec, LoadSpec):
                self._loading.begin(spec)
            elif isinstance(spec, RunSpec):
                self._state.begin(spec)
            else:
                self._measuring.begin(self._kind, spec)
            folder = str(self._runs) if self._runs else None
            self._send("start", self._number, self._kind, spec.model_dump_json(), folder)
            self._changed.notify_all()

    def stop(self) -> None:
        """Ask the job under way to end; it does within a step."""
        with self._changed:
            if self._busy:
                self._send("stop", self._number)

    def snapshot(self) -> Snapshot:
        """The state now."""
        with self._changed:
            found = self._state.snapshot()
            found.kind, found.measuring = self._kind, self._measuring.snapshot()
            found.loading = self._loading.snapshot()
            return found

    @property
    def version(self) -> int:
        """Rises with every change of a run or a load run; cheap to ask."""
        return self._state.version + self._loading.version

    @property
    def active(self) -> bool:
        """Whether a job is under way, of whichever kind."""
        return self._busy

    @property
    def pid(self) -> int | None:
        """Of the worker process, None where there is none."""
        return self._process.pid if self._process is not None else None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no job is under way; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout)

    def close(self) -> None:
        """End the worker; a job under way is cancelled."""
        with self._changed:
            process = self._process
            if process is None:
                return
            self._send("exit")
        try:
            process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # --- inside ---

    def _spawn(self, settings: dict[str, str]) -> None:
        ours, theirs = Pipe()
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | settings | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        fd = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workbench.worker_process", str(fd), self._job],
            pass_fds=[fd],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the parent to handle
        )
        theirs.close()
        self._connection, self._settings = ours, settings
        threading.Thread(
            target=self._read, args=(ours, self._process), name="worker-reader", daemon=True
        ).start()

    def _end_process(self) -> None:
        """Let go of an idle or dead process; its reader thread sees the end of the pipe."""
        assert self._process is not None
        self._send("exit")
        self._process, self._connection = None, None

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _send(self, *message: Any) -> None:
        try:
            if self._connection is not None:
                self._connection.send(message)
        except OSError:  # it has died; the reader thread says so
            pass

    def _read(self, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        """Fold what the worker says until its pipe ends."""
        while True:
            try:
                kind, *values = connection.recv()
            except (EOFError, OSError):
                break
            if kind == "events":
                for event in values[0]:
                    self._take(event)
            elif kind == "error":
                self._fail(RunStatus.FAILED, values[2], wrong_input=values[1])
            elif kind == "idle":
                self._set_idle(process)
        code = process.wait()
        with self._changed:
            connection.close()
            if self._process is process:
                self._process, self._connection = None, None
                if self._busy:
                    self._died(process.pid, code)

    def _folding(self) -> LiveState | LoadState | MeasuringState:
        """The state of the job's kind."""
        if self._kind == LOAD:
            return self._loading
        return self._state if self._kind == RUN else self._measuring

    def _take(self, event: Event) -> None:
        with self._changed:
            self._folding().fold(event)
            self._changed.notify_all()
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # a listener that fails (a closed terminal) ends the run, not the reader
            logger.debug("a listener failed", exc_info=True)
            self._on_event = None
            self.stop()

    def _fail(self, status: str, message: str, *, wrong_input: bool = False) -> None:
        with self._changed:
            self._folding().fail(status, message, wrong_input=wrong_input)
            self._changed.notify_all()

    def _set_idle(self, process: subprocess.Popen[bytes]) -> None:
        with self._changed:
            if self._process is process:
                self._busy = False
            self._changed.notify_all()

    def _died(self, pid: int, code: int) -> None:
        """The worker is gone in the middle of a job. Called under the lock."""
        state = self._folding()
        if state.active:
            message = death_sentence(code, dtype=_dtypes(self._spec))
            state.fail(RunStatus.INTERRUPTED, message)
            for entry in list_runs(self._runs, limit=_RECENT):  # it may have died compiling
                if entry.pid == pid:
                    mark_interrupted(entry.run_id, message, self._runs)
        self._busy = False
        self._changed.notify_all()


def death_sentence(code: int, *, dtype: str = "") -> str:
    """Why a worker is gone, in words: its signal and what to try, or its exit code."""
    if code >= 0:
        return f"The worker ended with exit code {code}; its last message stands in the log."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = SIGNAL_HINTS.get(name, "it was ended from outside").format(dtype=dtype or "these")
    return f"The worker died of {name}: {hint}."


def _dtypes(spec: Spec | None) -> str:
    """The number formats of a job, for a sentence."""
    if spec is None:
        return ""
    return spec.dtype if isinstance(spec, RunSpec | TrainSpec) else " or ".join(spec.dtypes)


def worker_settings(spec: Spec) -> dict[str, str]:
    """Environment variables that the worker must have before torch loads.

    bfloat16 on a processor that lists avx512_bf16: oneDNN is held to that instruction set, since
    virtual machines are known to list wider ones (AMX) that they then refuse to run. What the
    user has set stands.
    """
    on_cpu = not spec.device.startswith("cuda")
    if "bfloat16" in _dtypes(spec) and on_cpu and "avx512_bf16" in cpu_flags():
        return {_ISA: os.environ.get(_ISA, _ISA_WITHOUT_AMX)}
    return {}
