"""What serving many requests leaves behind: rows that are stored, drawn live and replayed.

All times are nanoseconds on the scheduler's clock, which starts at 0; a simulated scheduler leaves
the same rows on a simulated clock. Field names are the columns of the store's tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # rows are read where nothing is decoded, and torch takes its time to load
    from engine.decode import StepOutput
    from engine.records import RequestRecord
    from engine.requests import Request


class Order(NamedTuple):
    """A request as it comes in. Tokens depend on `request` alone, never on the rest."""

    request: Request
    arrival_ns: int
    pair: str = ""  # which model pair is to serve it; "" is the only one
    client: str = ""  # who asks: fairness is shown by client
    deadline_ns: int | None = None  # when the whole answer is wanted
    timeout_ns: int | None = None  # when it is given up


class ArrivalRow(NamedTuple):
    """A request's way through the queue. Told anew at each change; the last one holds."""

    request: int
    client: str
    pair: str
    replica: int  # which of several replicas has it, 0 where there is one
    arrival_ns: int
    num_prompt: int
    max_new_tokens: int
    deadline_ns: int | None = None
    timeout_ns: int | None = None
    slot: int | None = None
    #: prefill began and ended; of prompts read together each has a share of the time, by its tokens
    admitted_ns: int | None = None
    prefilled_ns: int | None = None
    first_token_ns: int | None = None  # end of the step that brought the first kept token
    ended_ns: int | None = None
    num_kept: int = 0
    #: a `FinishReason`, or "refused" (it could never be served, or the queue was full), or "lost"
    reason: str | None = None
    message: str = ""  # for people, where it was refused or lost
    attempts: int = 1  # times it was begun: more where a replica was lost


class ShareRow(NamedTuple):
    """What one request had of one step."""

    request: int
    slot: int
    nodes: int  # drafted nodes that were scored for it
    depth: int  # of its deepest scored node
    bid: float  # tokens its drafted nodes were expected to bring; NaN where nothing was expected
    accepted: int
    kept: int


class TickRow(NamedTuple):
    """One step of one pair's batch."""

    tick: int  # counted per replica
    pair: str
    replica: int
    begin_ns: int
    end_ns: int
    waiting: int  # orders in the queue when it began
    active: int  # requests in the batch
    budget: int | None  # most drafted nodes in all that were allowed; None: the drafter chose
    nodes: int  # drafted nodes that were scored
    draft_passes: int
    draft_ns: int
    score_ns: int
    verify_ns: int
    commit_ns: int
    rest_ns: int  # recording and what is not accounted for


class Tick(NamedTuple):
    """A step and who had what of it."""

    row: TickRow
    shares: list[ShareRow]


class LaneRow(NamedTuple):
    """One stretch of work of one lane of one rank; what lies between stretches is idle."""

    rank: int
    lane: str  # target, draft or network
    what: str  # score, prefill, expand, all-gather, verify, ...
    step: int  # target passes before it in the run
    begin_ns: int
    end_ns: int


class Decoder(Protocol):
    """What a scheduler drives: `engine.decode.Engine`, or a simulated one."""

    @property
    def num_free(self) -> int:
        """Slots that are free."""

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""

    def check(self, request: Request) -> int:
        """How many tokens the request may emit. Raises UserError where it could never run."""

    def add(self, *requests: Request) -> None:
        """Prefill requests into free slots, the lowest ones first; where that fails, none."""

    def step(self, budgets: Mapping[int, int] | None = None) -> StepOutput:
        """One step of all requests; `budgets`: most drafted nodes by request index."""

    def drop(self, index: int, reason: str = "cancelled") -> RequestRecord:
        """End one request where it is."""
