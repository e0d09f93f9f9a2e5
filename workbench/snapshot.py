"""What a viewer sees of a run under way: events folded into one state, copied out on request."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.records import Origin, RequestRecord
from workbench import metrics
from workbench.events import (
    Event,
    Progress,
    RequestDone,
    RequestStarted,
    RunFinished,
    RunStarted,
    RunSummary,
    StepDone,
)
from workbench.loading.state import Loading
from workbench.measuring import ACTIVE, IDLE, RUNNING, STARTING, Measuring
from workbench.spec import RunSpec

#: steps kept whole for scrubbing back in the live view
KEPT_STEPS = 400


class TextToken(NamedTuple):
    """One emitted token as text, and how it came about."""

    text: str  # empty while a character is incomplete
    origin: Origin
    kept: bool  # False: cut off by EOS, a stop string or max_new_tokens
    step: int
    token: int


@dataclass(slots=True)
class RequestView:
    """One request under way or done."""

    request: int
    question_id: str
    turn: int
    prompt: str
    tokens: list[TextToken] = field(default_factory=list)
    done: RequestRecord | None = None

    @property
    def text(self) -> str:
        """The output so far; the engine's own text once it is done."""
        if self.done is not None:
            return self.done.text
        return "".join(token.text for token in self.tokens if token.kept)


@dataclass(slots=True)
class Snapshot:
    """A copy of the state at one moment. `version` rises with every change."""

    version: int = 0
    status: str = IDLE  # idle, starting, running, or a RunStatus
    spec: RunSpec | None = None
    run_id: str = ""
    mode: str = ""
    note: str = ""  # what people should know of how it is run
    plain_step_ns: int | None = None
    num_requests: int = 0
    progress: Progress | None = None  # the long thing under way, None while decoding
    steps: list[StepDone] = field(default_factory=list)  # the last `KEPT_STEPS`
    num_steps: int = 0  # all of them
    requests: dict[int, RequestView] = field(default_factory=dict)  # in order of starting
    num_done: int = 0
    summary: RunSummary = field(default_factory=RunSummary)
    error: str = ""  # a sentence, where the run failed or its worker died
    wrong_input: bool = False  # the error is about the spec, and no run was kept
    kind: str = "run"  # of the job started last: run, load, compare, sweep, tune or train
    measuring: Measuring = field(default_factory=Measuring)  # the last other long work
    loading: Loading = field(default_factory=Loading)  # the last load run

    @property
    def active(self) -> bool:
        """Whether a run is under way."""
        return self.status in ACTIVE

    @property
    def current(self) -> RequestView | None:
        """The request that was started last."""
        return next(reversed(self.requests.values()), None)


class LiveState:
    """Folds events. Not thread-safe by itself: its owner holds a lock."""

    def __init__(self) -> None:
        self.version = 0
        self.begin(None)
        self._state.status = IDLE

    @property
    def status(self) -> str:
        return self._state.status

    @property
    def run_id(self) -> str:
        return self._state.run_id

    @property
    def active(self) -> bool:
        return self._state.active

    def begin(self, spec: RunSpec | None) -> None:
        """Forget the last run; `spec` is being started."""
        self._state = Snapshot(status=STARTING, spec=spec)
        self._steps: deque[StepDone] = deque(maxlen=KEPT_STEPS)
        self.version += 1

    def fail(self, status: str, message: str, *, wrong_input: bool = False) -> None:
        """The run ended without saying so itself."""
        state = self._state
        state.status, state.error, state.wrong_input = status, message, wrong_input
        state.progress = None
        self.version += 1

    def fold(self, event: Event) -> None:
        """Take in one event."""
        state = self._state
        self.version += 1
        match event:
            case Progress():
                state.progress = event
            case RunStarted():
                state.status, state.progress = RUNNING, None
                state.run_id, state.mode, state.note = event.run_id, event.mode, event.note
                state.plain_step_ns, state.num_requests = event.plain_step_ns, event.num_requests
            case RequestStarted():
                state.requests.pop(event.request, None)  # a repeat starts afresh, and comes last
                state.requests[event.request] = RequestView(
                    event.request, event.question_id, event.turn, event.prompt
                )
            case StepDone():
                self._steps.append(event)
                state.num_steps += 1
                metrics.add_step(state.summary, event.record)
                state.requests[event.record.request].tokens += text_tokens(event)
            case RequestDone():
                state.num_done += 1
                metrics.add_request(state.summary, event.record)
                state.requests[event.record.request].done = event.record
            case RunFinished():
                state.status, state.error = str(event.status), event.message
                state.run_id, state.summary = event.run_id, event.summary
                state.progress = None

    def snapshot(self) -> Snapshot:
        """A copy that later events leave alone."""
        state = copy.copy(self._state)
        state.version = self.version
        state.steps = list(self._steps)
        state.summary = copy.deepcopy(state.summary)
        state.requests = {
            index: RequestView(
                view.request,
                view.question_id,
                view.turn,
                view.prompt,
                list(view.tokens),
                view.done,
            )
            for index, view in state.requests.items()
        }
        return state


def text_tokens(event: StepDone) -> list[TextToken]:
    """The tokens a step emitted, each with its text and origin."""
    record = event.record
    last = len(record.emitted) - 1
    return [
        TextToken(
            text=text,
            origin=record.verdict.origin if at == last else Origin.DRAFT,
            kept=at < record.num_kept,
            step=record.step,
            token=token,
        )
        for at, (token, text) in enumerate(zip(record.emitted, event.emitted_text, strict=True))
    ]
