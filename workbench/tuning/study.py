"""A study as it is kept: Optuna's journal, one file beside the runs, in `studies/`.

Trials, options and figures are Optuna's own records; the spec, the status and the last measurement
are attributes of the study. A journal is only ever appended to, so it can be read while it grows,
and a crash loses no finished trial.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from engine.errors import UserError
from engine.paths import runs_folder
from workbench.statistics import Interval
from workbench.store.index import now_iso, process_alive
from workbench.sweeping.spec import NAME
from workbench.tuning.spec import TuneSpec

if TYPE_CHECKING:
    import optuna

RUNNING, INTERRUPTED = "running", "interrupted"
#: states of a trial as people read them
MEASURED, PRUNED, INFEASIBLE, FAILED = "measured", "pruned", "infeasible", "failed"
#: a lock so old belongs to a process that was killed
_LOCK_S = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the space that was tried."""

    number: int  # from 1
    options: dict[str, Any]
    state: str  # measured, pruned (broken off as hopeless), infeasible or failed
    value: float | None = None  # the objective, so far where pruned
    speedup: Interval | None = None  # over plain decoding, paired by prompt
    tokens_per_step: float | None = None
    tokens_per_second: float | None = None
    acceptance_rate: float | None = None
    prompts: int = 0
    matched: int = 0  # outputs equal to plain decoding's
    compared: int = 0
    why: str = ""  # where it was not measured
    key: int = -1  # Optuna's number


@dataclass(slots=True)
class Study:
    """What is known of a study."""

    spec: TuneSpec
    status: str  # running, finished, cancelled, failed or interrupted
    started: str = ""
    finished: str = ""
    trials: list[Trial] = field(default_factory=list)
    confirmed: dict[str, Any] | None = None  # see workbench.tuning.confirm
    notes: list[str] = field(default_factory=list)
    exhausted: bool = False  # there is nothing new to try

    @property
    def best(self) -> Trial | None:
        """The best of the trials measured in full."""
        known = [one for one in self.trials if one.state == MEASURED and one.value is not None]
        return max(known, key=lambda one: one.value or 0.0, default=None)

    @property
    def left(self) -> int:
        """Trials that are not made yet."""
        return 0 if self.exhausted else max(0, self.spec.trials - len(self.trials))


def study_names(runs: Path | None = None) -> list[str]:
    """Names of all stored studies, the one that changed last first."""
    files = []
    for file in folder(runs).glob("*.journal"):
        try:
            if NAME.fullmatch(file.stem):
                files.append((file.stat().st_mtime, file.stem))
        except OSError:  # gone meanwhile
            continue
    return [name for _, name in sorted(files, reverse=True)]


def load_study(name: str, runs: Path | None = None) -> Study:
    """A stored study; one whose process is gone reads as interrupted. Raises UserError."""
    if not study_file(name, runs).is_file():
        raise UserError(
            f"There is no study {name[:80]!r} in {folder(runs)}; `draftree tune METHOD` makes one."
        )
    stored = open_journal(name, runs)
    try:
        return as_study(stored)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"Study {name} in {folder(runs)} is damaged, or of another version of Draftree "
            f"({type(error).__name__}); begin anew with --fresh, or delete it."
        ) from None


def as_study(stored: optuna.Study) -> Study:
    """Optuna's records in the workbench's words."""
    known = stored.user_attrs
    status = str(known.get("status", INTERRUPTED))
    if status == RUNNING and not process_alive(*known.get("process", (None, None))):
        status = INTERRUPTED
    return Study(
        spec=TuneSpec.model_validate(known["spec"]),
        status=status,
        started=str(known.get("started", "")),
        finished=str(known.get("finished", "")),
        trials=visible(stored),
        confirmed=known.get("confirmed"),
        notes=list(known.get("notes", [])),
        exhausted=bool(known.get("exhausted")),
    )


def visible(stored: optuna.Study) -> list[Trial]:
    """Trials that ended by themselves; half ones and those that repeat another do not count."""
    found: list[Trial] = []
    for one in stored.get_trials(deepcopy=False):
        known = one.user_attrs
        state = {"COMPLETE": MEASURED, "PRUNED": PRUNED, "FAIL": FAILED}.get(one.state.name)
        if state is None or (state == FAILED and not known.get("why")) or "options" not in known:
            continue
        if state == PRUNED and known.get("why"):
            state = INFEASIBLE
        partial = list(one.intermediate_values.values())
        speedup = known.get("speedup")
        found.append(
            Trial(
                number=len(found) + 1,
                options=known["options"],
                state=state,
                value=one.value if state == MEASURED else (partial[-1] if partial else None),
                speedup=None if speedup is None else _interval(speedup),
                tokens_per_step=known.get("tokens_per_step"),
                tokens_per_second=known.get("tokens_per_second"),
                acceptance_rate=known.get("acceptance_rate"),
                prompts=known.get("prompts", 0),
                matched=known.get("matched", 0),
                compared=known.get("compared", 0),
                why=str(known.get("why", "")),
                key=one.number,
            )
        )
    return found


def open_journal(
    name: str, runs: Path | None = None, *, create: bool = False, **settings: Any
) -> optuna.Study:
    """Optuna's study of this name. `settings`: sampler and pruner. Raises UserError."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(logging.ERROR)  # a trial that fails is told by its study
    file = study_file(name, runs)
    with storing(file):
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
            _mend(file)
    try:
        with storing(file), quiet():
            lock = JournalFileOpenLock(str(file), grace_period=_LOCK_S)
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(file), lock))
            if not create:
                return optuna.load_study(study_name=name, storage=storage)
            return optuna.create_study(
                study_name=name, storage=storage, direction="maximize", load_if_exists=True,
                **settings,
            )  # fmt: skip
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{file} cannot be read as a study: {reason}") from None


@contextmanager
def storing(file: Path) -> Iterator[None]:
    """A disk that is full or may not be written to becomes a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The study cannot be kept in {file}: {error.strerror or error}. Trials that were "
            "stored before are safe; make room, or set DRAFTREE_RUNS to another folder."
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's remarks on what it calls experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def under_way(name: str, runs: Path | None = None) -> int | None:
    """The process that works on a study just now, this one excepted."""
    if not study_file(name, runs).is_file():
        return None
    known = open_journal(name, runs).user_attrs
    pid, began = known.get("process", (None, None))
    alive = known.get("status") == RUNNING and pid != os.getpid() and process_alive(pid, began)
    return int(pid) if alive else None


def this_process() -> tuple[int, float]:
    """Process id and when it began."""
    here = psutil.Process()
    return here.pid, here.create_time()


def study_file(name: str, runs: Path | None = None) -> Path:
    """The journal of a study. Raises UserError for what is no name."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name[:80]!r} is no name of a study; use up to 64 letters, digits, dots and dashes."
        )
    return folder(runs) / f"{name}.journal"


def folder(runs: Path | None = None) -> Path:
    """Where studies lie."""
    return (runs or runs_folder()) / "studies"


def stamp(stored: optuna.Study, **known: Any) -> None:
    """Keep attributes of the study; `finished` is the time."""
    for name, value in {**known, "finished": now_iso()}.items():
        stored.set_user_attr(name, value)


def _mend(file: Path) -> None:
    """Cut off a last line that a full disk or a kill left half-written."""
    if not file.is_file():
        return
    with file.open("rb+") as journal:
        text = journal.read()
        if text and not text.endswith(b"\n"):
            journal.truncate(text.rfind(b"\n") + 1)


def _interval(values: list[float | None]) -> Interval:
    return Interval(*(float("nan") if value is None else float(value) for value in values))


def told(options: Mapping[str, Any]) -> str:
    """Options in a line."""
    words = {True: "on", False: "off"}
    return ", ".join(
        f"{name} {words[value] if isinstance(value, bool) else value}"
        for name, value in options.items()
    )


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """How many trials ended in which way, those that did not occur left out."""
    states = (MEASURED, PRUNED, INFEASIBLE, FAILED)
    found = {state: sum(one.state == state for one in trials) for state in states}
    return {state: count for state, count in found.items() if count}
