"""Completing a run's ranks in a child process: the app must neither load models nor wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from workbench.worker import death_sentence


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    message: str = "Starting"
    share: float = 0.0
    active: bool = True
    error: str = ""  # a sentence, where it failed


class Completion:
    """One `python -m workbench.whatif.complete RUN`; safe to ask from several threads."""

    def __init__(self, run_id: str, *, module: str = "workbench.whatif.complete") -> None:
        """Starts at once. `module` is what the child runs (for tests)."""
        self.run_id = run_id
        self._progress = Progress()
        self._cancelled = False
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, run_id],
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, name="completion", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """The state now."""
        return self._progress

    def cancel(self) -> None:
        """End it at once; nothing is kept."""
        self._cancelled = True
        self._process.kill()
        self._thread.join()

    def wait(self, timeout: float | None = None) -> Progress:
        """The state once it has ended, or after `timeout` seconds."""
        self._thread.join(timeout)
        return self._progress

    def _read(self) -> None:
        assert self._process.stdout is not None
        error, done = "", False
        for line in self._process.stdout:
            try:
                told = json.loads(line)
            except ValueError:  # a library printed something
                continue
            error, done = told.get("error", error), bool(told.get("done", done))
            if "message" in told:
                self._progress = Progress(told["message"], float(told["share"]))
        code = self._process.wait()
        if not done and not error and not self._cancelled:
            error = death_sentence(code).replace("The worker", "The process that ranked tokens")
        self._progress = Progress("Done" if done else "Stopped", 1.0, active=False, error=error)
