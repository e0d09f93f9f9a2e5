"""A stored request opened for replay: facts of all its steps at once, trees when asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from engine.errors import UserError
from workbench.store import RunEntry, RunStatus, open_run
from workbench.store.reader import RunInfo, RunReader
from workbench.store.windows import steps_done
from workbench.view.forms import preview
from workbench.view.headline import UNKNOWN, figures, headline
from workbench.view.live import Live
from workbench.view.replay_facts import request_summary, step_columns
from workbench.view.runs_frame import options_text
from workbench.view.steps import step_layout
from workbench.view.visible import safe_text

#: laid-out trees kept of a request, and most boxes laid out for one question
KEPT_TREES = 600
BOXES_PER_ANSWER = 4_000
STEPS_PER_ANSWER = 64


class RequestChoice(NamedTuple):
    """One request of a run that has steps."""

    request: int
    repeat: int
    label: str


def replayable(entry: RunEntry) -> bool:
    """Whether a run can be replayed: it has ended and recorded steps, as far as the index knows."""
    if entry.status is RunStatus.RUNNING:
        return False
    # an engine that does not tell of its steps leaves their histogram empty
    return bool(entry.summary.get("histogram")) or entry.status is not RunStatus.FINISHED


def request_choices(run_id: str, folder: Path | None = None) -> list[RequestChoice]:
    """The requests of a run that have steps, in order.

    Raises:
        UserError: the run cannot be opened, or holds no steps.
    """
    with open_run(run_id, folder) as run:
        stepped = run.query(
            'SELECT DISTINCT request, "repeat" FROM step ORDER BY "repeat", request'
        )
        requests = run.requests().set_index(["request", "repeat"])
        status, message = run.info.status, run.info.message
    if stepped.empty:
        reason = f": it {status}. {message}" if message else f"; it {_ENDINGS[status]}."
        raise UserError(f"Run {run_id} holds no steps{reason}")
    many = stepped["repeat"].nunique() > 1
    choices = []
    for request, repeat in stepped.itertuples(index=False):
        row = requests.loc[(request, repeat)] if (request, repeat) in requests.index else None
        label = _request_label(int(request), row) + (f" · repeat {repeat + 1}" if many else "")
        choices.append(RequestChoice(int(request), int(repeat), label))
    return choices


class Replay:
    """One request of a run. Its file is opened to read and closed again at once."""

    def __init__(
        self, run_id: str, request: int, repeat: int = 0, *, folder: Path | None = None
    ) -> None:
        """Read all but the trees. Raises UserError where the run or its steps cannot be read."""
        self.id = f"{run_id}/{request}/{repeat}"
        self.run_id, self.request, self.repeat = run_id, request, repeat
        self._folder = folder
        self._trees: dict[tuple[int, bool, bool], dict[str, Any] | None] = {}
        self._lock = threading.Lock()
        with open_run(run_id, folder) as run:
            self.info: RunInfo = run.info
            self._steps = run.steps(request=request, repeat=repeat).sort_values("step")
            if self._steps.empty:
                raise UserError(f"Run {run_id} has no steps of request {request + 1}.")
            self.tokens: pd.DataFrame = run.tokens(request=request, repeat=repeat)
            self._row = _row(run, request, repeat)
            first = run.query("SELECT min(request) AS first FROM step")["first"].iloc[0]
        # the plain step was timed on the first prompt, before the run
        on_this = request == int(first)
        self.plain_step_ns = self.info.plain_step_ns if on_this else None
        self.summary = request_summary(self._steps, self._row)

    @property
    def num_steps(self) -> int:
        return len(self._steps)

    @property
    def prompt(self) -> str:
        """The text the request continues, as the target saw it."""
        stored = self._row["prompt"] if self._row is not None else self.info.spec.prompt
        return stored if isinstance(stored, str) else ""

    @property
    def label(self) -> str:
        """Method and the options that were chosen."""
        spec = self.info.spec
        name = safe_text(spec.arm or spec.method)
        options = options_text({"options": spec.options})
        return f"{name} ({options})" if options else name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that the view knows of the request beside its trees; plain JSON."""
        live = Live(
            status=str(self.info.status),
            spec=self.info.spec,
            mode=self.info.mode or "",
            summary=self.summary,
            plain_step_ns=self.plain_step_ns,
        )
        known = figures(self.summary, self.plain_step_ns)
        return step_columns(self._steps, self.tokens) | {
            "prompt": safe_text(self.prompt),
            "head": headline(live) | {"message": safe_text(self.info.message)},
            "figures": [figure for figure in known if figure["value"] != UNKNOWN],
        }

    def trees(
        self, wanted: Iterable[int], *, pruned: bool = False, whole: bool = False
    ) -> dict[int, dict[str, Any] | None]:
        """Laid-out trees by the step's place, 0 for the first; None where none was recorded.

        Answers as many of the wanted, in their order, as the limits allow. `pruned` draws dropped
        nodes too, `whole` every branch of a large tree. Raises UserError once the file is gone.
        """
        places = [at for at in dict.fromkeys(wanted) if 0 <= at < self.num_steps]
        places = self._affordable(places[:STEPS_PER_ANSWER])
        with self._lock:
            known = {
                at: self._trees[at, pruned, whole]
                for at in places
                if (at, pruned, whole) in self._trees
            }
        missing = [at for at in places if at not in known]
        if missing:
            known |= self._lay_out(missing, pruned=pruned, whole=whole)
        return {at: known[at] for at in places}

    def _affordable(self, places: list[int]) -> list[int]:
        boxes = np.minimum(self._steps["num_drafted"].to_numpy()[places], 200).cumsum()
        return places[: max(1, int(np.searchsorted(boxes, BOXES_PER_ANSWER, side="right")))]

    def _lay_out(
        self, places: list[int], *, pruned: bool, whole: bool
    ) -> dict[int, dict[str, Any] | None]:
        numbers = self._steps["step"].to_numpy()[places].tolist()
        with open_run(self.run_id, self._folder) as run:
            steps = steps_done(run, numbers, request=self.request, repeat=self.repeat)
        found: dict[int, dict[str, Any] | None] = {}
        for at, number in zip(places, numbers, strict=True):
            step = steps.get(number)
            found[at] = None if step is None else step_layout(step, unfolded=whole, pruned=pruned)
        with self._lock:
            self._trees |= {(at, pruned, whole): tree for at, tree in found.items()}
            while len(self._trees) > KEPT_TREES:
                self._trees.pop(next(iter(self._trees)))
        return found


_ENDINGS = {
    RunStatus.FINISHED: "was decoded by an engine whose steps are not recorded",
    RunStatus.CANCELLED: "was stopped before the first",
    RunStatus.FAILED: "failed before the first",
    RunStatus.INTERRUPTED: "was interrupted before the first was stored",
    RunStatus.RUNNING: "is still in progress",
}


def _row(run: RunReader, request: int, repeat: int) -> pd.Series | None:
    rows = run.requests()
    own = rows[(rows["request"] == request) & (rows["repeat"] == repeat)]
    return None if own.empty else own.iloc[0]


def _request_label(request: int, row: pd.Series | None) -> str:
    if row is None:
        return f"{request + 1}"
    parts = [str(request + 1), preview(row["prompt"] or "")]
    return " · ".join(part for part in parts if part)
