"""What a worker says while it works. Plain picklable values that cross a pipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.records import RequestRecord, StepRecord
from engine.serving.trace import ArrivalRow, LaneRow, Tick


class Progress(NamedTuple):
    """Something long is under way before or between steps (loading, compiling, prefill)."""

    phase: str
    message: str
    fraction: float | None = None


class RunStarted(NamedTuple):
    """Models are loaded, the run is kept, decoding begins."""

    run_id: str
    mode: str  # "eager" or "compiled"; never changes within a run
    plain_step_ns: int | None  # a plain step on the same prompt, for the live estimate
    num_requests: int
    note: str = ""  # what people should know of how it is run, in sentences


class RequestStarted(NamedTuple):
    """A prompt was taken up."""

    request: int
    question_id: str
    turn: int
    prompt: str


class StepDone(NamedTuple):
    """One step. `pieces_M` shows each node's token as text; `emitted_text` is what each adds.

    `next_piece` shows the bonus or correction, which may add no text: the end of it, for one.
    """

    record: StepRecord
    pieces_M: list[str]
    emitted_text: list[str]  # increments of decoded text, never half a character
    next_piece: str = ""


class RequestDone(NamedTuple):
    """A request ended."""

    record: RequestRecord


class RunFinished(NamedTuple):
    """The last event of a run."""

    run_id: str
    status: str  # finished, cancelled or failed
    summary: RunSummary
    message: str = ""  # for people, when failed


class MeasuringStarted(NamedTuple):
    """A comparison or a sweep has passed its checks."""

    result: str  # the comparison's id, or the sweep's name


class MeasuringFinished(NamedTuple):
    """The last event of a comparison or a sweep."""

    result: str  # empty: nothing was complete, so nothing was kept
    status: str  # finished, cancelled or failed
    message: str = ""  # for people, when failed


class LoadStarted(NamedTuple):
    """Models are loaded, the load run is kept, the scheduler's clock runs from 0.

    What follows of it are `ArrivalRow`, `Tick` and `LaneRow` values as they come.
    """

    run_id: str
    mode: str
    num_requests: int | None  # that will come; None: as many as do in the time
    slots: int  # of each pair
    pairs: tuple[str, ...]  # their names; one alone has an empty one


class LoadFinished(NamedTuple):
    """The last event of a load run."""

    run_id: str  # empty: stopped before anything was kept
    status: str  # finished, cancelled or failed
    metrics: dict[str, Any]  # `LoadMetrics.as_json()`; empty where no request came
    message: str = ""  # for people, when failed


@dataclass(slots=True)
class RunSummary:
    """Figures of a whole run; definitions in docs/measuring.md."""

    requests: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    emitted: int = 0
    kept: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0
    repetition: float = 0.0
    stages_ns: dict[str, int] = field(default_factory=dict)  # totals by stage
    accepted_at_depth: list[int] = field(default_factory=list)
    tested_at_depth: list[int] = field(default_factory=list)
    accepted_at_rank: list[int] = field(default_factory=list)
    tested_at_rank: list[int] = field(default_factory=list)
    parents_reached: int = 0  # nodes on accepted paths that had children
    histogram: list[int] = field(default_factory=list)  # steps by number of accepted nodes
    draft_passes: int = 0
    passes: int = 0  # target passes; one serves a whole batch
    ngrams: int = 0  # 8-grams of all outputs, the weight of `repetition`
    #: of the steps whose outcome was predicted: as predicted, and as they turned out
    predicted_tokens: float = 0.0
    predicted_ns: float = 0.0
    met_tokens: int = 0
    met_ns: int = 0

    @property
    def tokens_per_step(self) -> float:
        return self.emitted / self.steps if self.steps else 0.0

    @property
    def acceptance_rate(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.kept / self.decode_ns * 1e9 if self.decode_ns else 0.0

    def as_json(self) -> dict[str, Any]:
        """A flat object with the derived figures included."""
        from dataclasses import asdict

        return asdict(self) | {
            "tokens_per_step": self.tokens_per_step,
            "acceptance_rate": self.acceptance_rate,
            "tokens_per_second": self.tokens_per_second,
        }


Event = (
    Progress
    | RunStarted
    | RequestStarted
    | StepDone
    | RequestDone
    | RunFinished
    | MeasuringStarted
    | MeasuringFinished
    | LoadStarted
    | LoadFinished
    | ArrivalRow
    | Tick
    | LaneRow
)
