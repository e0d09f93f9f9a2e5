"""A sweep as it is kept: one JSON file that names, for each finished cell, its comparison.

It lies beside the runs, in `sweeps/`, and is written anew after every part, so that a crash loses
one part and no more.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from engine.errors import UserError
from engine.paths import runs_folder
from workbench.jsonfiles import write_whole
from workbench.store.index import now_iso, process_alive
from workbench.sweeping.spec import NAME, SweepSpec

FORMAT = 1
RUNNING, INTERRUPTED = "running", "interrupted"


@dataclass(slots=True)
class Sweep:
    """What is done of a sweep."""

    spec: SweepSpec
    status: str  # running, finished, cancelled, failed, or interrupted
    started: str
    finished: str = ""
    cells: dict[str, str] = field(default_factory=dict)  # arm -> comparison that measured it
    failed: dict[str, str] = field(default_factory=dict)  # arm -> why it could not be measured
    notes: list[str] = field(default_factory=list)
    pid: int | None = None
    pid_started: float | None = None

    @property
    def left(self) -> list[str]:
        """Cells that are not measured yet, in order."""
        return [label for label in self.spec.cells() if label not in self.cells]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the way back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"format": FORMAT, **values, "spec": self.spec.model_dump(mode="json")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Sweep:
        """Raises KeyError, TypeError or ValueError for what is no sweep."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        return cls(**known | {"spec": SweepSpec.model_validate(values["spec"])})


def sweep_names(runs: Path | None = None) -> list[str]:
    """Names of all stored sweeps, the one that changed last first."""
    files = []
    for file in _folder(runs).glob("*.json"):
        try:
            if NAME.fullmatch(file.stem):
                files.append((file.stat().st_mtime, file.stem))
        except OSError:  # gone meanwhile
            continue
    return [name for _, name in sorted(files, reverse=True)]


def load_sweep(name: str, runs: Path | None = None) -> Sweep:
    """A stored sweep; one whose process is gone reads as interrupted. Raises UserError."""
    found = _read(name, runs)
    if found is None:
        raise UserError(
            f"There is no sweep {name[:80]!r} in {_folder(runs)}; `draftree sweep FILE` makes one."
        )
    if found.status == RUNNING and not process_alive(found.pid, found.pid_started):
        found.status = INTERRUPTED
    return found


def begin(spec: SweepSpec, runs: Path, *, fresh: bool = False) -> Sweep:
    """The stored sweep of this name to go on with, or a new one; marked as under way, and stored.

    Raises:
        UserError: it is under way in another process, or was measured with other settings.
    """
    before = None if fresh else _read(spec.name, runs)
    here = psutil.Process()
    if before is not None:
        elsewhere = before.status == RUNNING and before.pid != here.pid
        if elsewhere and process_alive(before.pid, before.pid_started):
            raise UserError(
                f"Sweep {spec.name} is under way in process {before.pid}; wait until it has ended, "
                "or stop it there."
            )
        _check_same(before.spec, spec)
    found = Sweep(spec, RUNNING, now_iso(), pid=here.pid, pid_started=here.create_time())
    if before is not None:
        found.started, found.cells = before.started, before.cells
    save_sweep(found, runs)
    return found


def saved_before(spec: SweepSpec, runs: Path | None = None) -> int:
    """How many of its cells are measured already. Raises UserError for a damaged file."""
    before = _read(spec.name, runs)
    return sum(label in before.cells for label in spec.cells()) if before is not None else 0


def save_sweep(sweep: Sweep, runs: Path | None = None) -> Path:
    """Write it, whole or not at all. Raises UserError where it cannot be written."""
    return write_whole(_file(sweep.spec.name, runs), sweep.as_json(), "The sweep")


def _check_same(before: SweepSpec, now: SweepSpec) -> None:
    """New cells may join; cells measured in another way may not stand beside the old ones."""
    old, new = before.measured_as(), now.measured_as()
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        name = changed[0]
        raise UserError(
            f"Sweep {now.name} was measured with {name} {_shown(old.get(name))}, and now it is "
            f"{_shown(new[name])}. Give it another name, or measure all of it again (--fresh)."
        )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(name: str, runs: Path | None) -> Sweep | None:
    file = _file(name, runs)
    try:
        return Sweep.from_json(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read as a sweep: {error}") from None


def _file(name: str, runs: Path | None) -> Path:
    if not NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r} is no name of a sweep; use letters, digits and dashes.")
    return _folder(runs) / f"{name}.json"


def _folder(runs: Path | None) -> Path:
    return (runs or runs_folder()) / "sweeps"
