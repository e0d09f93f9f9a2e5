"""Trainings of heads as they are stored, made up by a rule: logs that grow, and cards."""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from engine.models import content_hash
from engine.paths import data_folder
from engine.training.heads_log import HeadLog
from workbench.training.spec import OUT, TrainSpec, write_spec
from workbench.view.heads_runs import heads_folder

STEPS = 40
TOKENS = 1024  # of a step
NGRAM = {"2": 0.31, "3": 0.12, "4": 0.06, "5": 0.04, "6": 0.03}


@cache
def target_hash() -> str:
    """Of the embedded target."""
    return content_hash(str(data_folder() / "models" / "pycode-target"))


def accuracy(offset: int, share: float) -> dict[str, Any]:
    """How often guesses at an offset are right once `share` of the budget is spent."""
    top1 = share**0.5 * 0.55 * 0.72 ** (offset - 2)
    return {"top1": round(top1, 4), "top5": round(min(0.95, 1.5 * top1), 4), "count": 8000}


def looked_at(share: float) -> dict[str, Any]:
    """One look at held-out text, as a log and a card have it."""
    return {
        "loss": 6.0 - 3.0 * share**0.5,
        "held_out": {str(offset): accuracy(offset, share) for offset in range(2, 6)},
        "written": {str(offset): accuracy(offset, 0.9 * share) for offset in range(2, 6)},
    }


def ngram() -> dict[str, Any]:
    """How often an n-gram is right, at more offsets than the heads guess."""
    return {offset: {"top1": share, "top5": 2 * share} for offset, share in NGRAM.items()}


class ScriptedTraining:
    """Writes what a training writes. `pid` is of whoever trains: this process lives."""

    def __init__(self, spec: TrainSpec, *, pid: int | None = None) -> None:
        self.folder = heads_folder() / spec.name
        self.spec = spec
        self._log = HeadLog(self.folder)
        self._done = self._steps_before()
        self._began = time.time() - 2.0 * self._done
        self._write(
            "start", self._done, pid=os.getpid() if pid is None else pid, kind=spec.kind,
            target=Path(spec.target).name, target_hash=target_hash(),
            out=str(self.folder / OUT), command=f"draftree train {spec.kind}", recipe={},
        )  # fmt: skip
        self._write("ngram", self._done, held_out=ngram())

    def go_on(self, share: float) -> None:
        """Train until `share` of the budget is spent."""
        for step in range(self._done + 1, round(share * STEPS) + 1):
            if step % 5 == 0:
                self._write("accuracy", step, **looked_at(step / STEPS))
            loss = 7.0 - 3.5 * (step / STEPS) ** 0.5
            self._write("step", step, loss=loss, rate=900.0)
            self._done = step

    def end(self, state: str, message: str = "") -> None:
        """The last line; a head is written where it has finished."""
        if state == "finished":
            self.go_on(1.0)
            store_head(self.folder / OUT, kind=self.spec.kind)
        self._write("end", self._done, state=state, message=message)

    def _write(self, event: str, step: int, **fields: Any) -> None:
        """As `HeadLog.write`, with times of the script's own: two seconds a step."""
        line = {"event": event, "time": self._began + 2.0 * step, "step": step,
                "tokens": step * TOKENS, "fraction": step / STEPS}  # fmt: skip
        with self._log.path.open("a") as file:
            file.write(json.dumps(line | fields) + "\n")

    def _steps_before(self) -> int:
        if not self._log.path.exists():
            return 0
        lines = [json.loads(line) for line in self._log.path.read_text().splitlines()]
        return max((line["step"] for line in lines), default=0)


def training(name: str = "pycode-target-medusa", **fields: Any) -> TrainSpec:
    """A spec of two minutes."""
    return TrainSpec(**({"name": name, "minutes": 2.0} | fields))


def store_training(
    state: str = "finished", share: float = 1.0, *, message: str = "",
    spec: TrainSpec | None = None, pid: int | None = None, from_terminal: bool = False,
) -> Path:  # fmt: skip
    """A training in `state`: as a log has it, or `running` or `killed`; its folder."""
    spec = spec or training()
    if not from_terminal:
        write_spec(spec, heads_folder() / spec.name)
    dead = 2**22 - 7  # above what this machine hands out
    scripted = ScriptedTraining(spec, pid=dead if state == "killed" else pid)
    scripted.go_on(share)
    if state not in ("running", "killed"):
        scripted.end(state, message)
    return scripted.folder


def store_head(folder: Path, *, kind: str = "medusa", **changes: Any) -> Path:
    """A head's card, and weights that hold nothing; its folder."""
    card = {
        "version": 1, "kind": kind, "sizes": {"num_heads": 4},
        "target": {"name": "pycode-target", "content_hash": target_hash()},
        **looked_at(1.0),
        "ngram": ngram(),
        "training": {"steps": STEPS, "tokens": STEPS * TOKENS, "seconds": 84.0, "loss": 3.5},
        "corpus": {"description": "The sources of Python's standard library."},
        "written_tokens": 200_000,
    } | changes  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "head.json").write_text(json.dumps(card))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder
