"""A request on its way through a fleet, and a replica with the requests that it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.cluster.rates import Rates, finish_ns
from engine.records import RequestRecord, StepRecord
from engine.serving.trace import ArrivalRow, Order, Tick

#: a replica that told nothing for longer counts as slower by that time
_SILENCE_NS = 1_000_000_000


@dataclass(slots=True)
class Entry:
    """A request that has not ended."""

    order: Order
    row: ArrivalRow
    at: int | None = None  # the replica that has it
    kept: int = 0  # tokens that this replica told of
    prefilled: bool = False  # there
    losses: int = 0
    alone: bool = False  # it gets a replica of its own
    cancelled: bool = False
    steps: list[StepRecord] = field(default_factory=list)  # of the present attempt
    record: RequestRecord | None = None


@dataclass(slots=True)
class Place:
    """A replica as the router sees it."""

    number: int
    slots: int
    depth: int
    told_ns: int
    draining: bool = False
    entries: dict[int, Entry] = field(default_factory=dict)
    tokens_left: int = 0  # of its requests' length limits
    prompts_left: int = 0  # tokens of prompts that are not prefilled
    rates: Rates = field(default_factory=Rates)

    @property
    def taken(self) -> bool:
        """Whether a request has it for itself."""
        return any(entry.alone for entry in self.entries.values())

    def put(self, entry: Entry) -> None:
        """It has this request now."""
        entry.at, entry.kept, entry.prefilled = self.number, 0, False
        request = entry.order.request
        self.entries[request.index] = entry
        self.tokens_left += request.max_new_tokens
        self.prompts_left += len(request.prompt_ids)

    def remove(self, entry: Entry) -> None:
        """It has this request no longer."""
        request = entry.order.request
        del self.entries[request.index]
        self.tokens_left -= request.max_new_tokens - entry.kept
        if not entry.prefilled:
            self.prompts_left -= len(request.prompt_ids)
        entry.at = None

    def check_integrity(self) -> None:
        """Raise AssertionError where what it counts is not what its requests sum up to."""
        entries = self.entries.values()
        assert all(entry.at == self.number for entry in entries)
        left = [entry.order.request.max_new_tokens - entry.kept for entry in entries]
        assert self.tokens_left == sum(left), "tokens that are left"
        unread = [entry for entry in entries if not entry.prefilled]
        prompts = [len(entry.order.request.prompt_ids) for entry in unread]
        assert self.prompts_left == sum(prompts), "prompts that are not prefilled"

    def learn(self, tick: Tick) -> None:
        """A step of it is over."""
        for share in tick.shares:
            if entry := self.entries.get(share.request):
                entry.kept += share.kept
                self.tokens_left -= share.kept

    def predicted_ns(
        self, order: Order, *, now_ns: int, fleet: Rates, length_share: float
    ) -> float:
        """Time until the request would be done here.

        fleet: rates to go by before it has any of its own.
        length_share: share of its length limit that a request is expected to use.
        """
        silent = max(0, now_ns - self.told_ns - _SILENCE_NS) if self.entries else 0
        return silent + finish_ns(
            self.rates if self.rates.known else fleet,
            slots=self.slots,
            requests=len(self.entries),
            tokens=self.tokens_left * length_share,
            prompts=self.prompts_left,
            own=order.request.max_new_tokens * length_share,
            prompt=len(order.request.prompt_ids),
        )


def fresh_row(order: Order) -> ArrivalRow:
    """The row of a request that has no replica yet."""
    request = order.request
    return ArrivalRow(
        request=request.index,
        client=order.client,
        pair=order.pair,
        replica=0,
        arrival_ns=order.arrival_ns,
        num_prompt=len(request.prompt_ids),
        max_new_tokens=request.max_new_tokens,
        deadline_ns=order.deadline_ns,
        timeout_ns=order.timeout_ns,
    )
