"""The log of a training of heads: progress.jsonl in its work folder, one JSON object a line.

Whoever wants to watch a training reads this file; nothing else is needed. Lines are appended as
the training goes, and a run that is taken up appends to the same file. Lines of six kinds, told by
`event`:

    {"event": "start", "time": 1764291000.1, "pid": 4711, "kind": "medusa", "target": "NAME",
     "target_hash": "...", "out": "heads/NAME-medusa", "command": "draftree train medusa ...",
     "step": 0, "tokens": 0, "recipe": {...}}
    {"event": "phase", "time": ..., "phase": "corpus" | "generate" | "ngram", "fraction": 0.5}
    {"event": "ngram", "time": ..., "held_out": {"2": {"top1": 0.28, ...}, "3": {...}, ...}}
    {"event": "step", "time": ..., "step": 12, "tokens": 12288, "fraction": 0.01, "loss": 3.1,
     "rate": 900.0}
    {"event": "accuracy", "time": ..., "step": 100, "tokens": 102400, "fraction": 0.05,
     "loss": 2.9, "held_out": {"2": {"top1": 0.31, "top5": 0.5, "by_rank": [0.31, ...],
     "count": 8000}, "3": {...}}, "written": {"2": {...}}}
    {"event": "end", "time": ..., "step": ..., "tokens": ..., "fraction": 1.0,
     "state": "finished" | "stopped" | "failed", "message": "..."}

`time` is seconds since 1970, `loss` the running mean of the training loss in nats (of the held-out
loss in `accuracy` lines), `rate` tokens per second, `fraction` the share of the budget that is
spent (of the phase in `phase` lines: before training the text is read, the target writes some, and
an n-gram is counted). Accuracies are by offset from the last token that the target has run: "2"
comes after the next one. `held_out` is against text of the corpus, `written` against text the
target wrote. A line cut short by a kill is skipped. A log whose last event is not `end` belongs to
a training that runs, or was killed: `alive` tells which.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

FILE = "progress.jsonl"


class HeadLog:
    """Appends to a log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._mend()

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; values must be JSON."""
        line = json.dumps({"event": event, "time": time.time()} | fields)
        with self.path.open("a") as file:
            file.write(line + "\n")

    def start(self, **fields: Any) -> None:
        """Say that this process trains now."""
        self.write("start", pid=os.getpid(), **fields)

    def _mend(self) -> None:
        """End a line that a kill cut short, so that the next one stands alone."""
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")


class HeadRun(NamedTuple):
    """A log as it was read."""

    folder: Path
    start: dict[str, Any]
    """The latest `start` line."""
    steps: list[dict[str, Any]]
    accuracy: list[dict[str, Any]]
    end: dict[str, Any] | None
    """The `end` line, None while it runs or after a kill."""
    ngram: dict[str, Any]
    """How often an n-gram of the same text is right on `held_out`, by offset."""

    @property
    def alive(self) -> bool:
        """Whether the process that started it still trains."""
        return self.end is None and _trains(int(self.start["pid"]), float(self.start["time"]))


def read_log(folder: Path) -> HeadRun | None:
    """The log in a work folder, None where no training has begun there.

    Steps that were trained once more after a kill are given once, as they were trained last.
    """
    try:
        text = (folder / FILE).read_text()
    except OSError:
        return None
    start: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    steps: list[dict[str, Any]] = []
    accuracy: list[dict[str, Any]] = []
    ngram: dict[str, Any] = {}
    for line in text.splitlines():
        try:
            event = json.loads(line)
            kind, step = event["event"], event.get("step", 0)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if kind == "start":
            start, end = event, None
            steps = [one for one in steps if one["step"] <= step]
            accuracy = [one for one in accuracy if one["step"] <= step]
        elif kind == "step":
            steps.append(event)
        elif kind == "accuracy":
            accuracy.append(event)
        elif kind == "ngram":
            ngram = event.get("held_out", {})
        elif kind == "end":
            end = event
    return None if start is None else HeadRun(folder, start, steps, accuracy, end, ngram)


def find_logs(root: Path) -> list[HeadRun]:
    """All trainings in the folders below `root`, the latest first."""
    found = [read_log(path.parent) for path in root.glob(f"**/{FILE}")]
    runs = [run for run in found if run is not None]
    return sorted(runs, key=lambda run: -float(run.start["time"]))


def _trains(pid: int, since: float) -> bool:
    """Whether that very process lives; a number that was given anew began later."""
    try:
        return psutil.Process(pid).create_time() <= since + 1.0
    except psutil.Error:
        return False
