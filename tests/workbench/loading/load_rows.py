"""Invented rows of a small load run whose figures can be worked out by hand."""

from __future__ import annotations

import math

from engine.serving.trace import ArrivalRow, ShareRow, Tick, TickRow

MS = 1_000_000


def arrival(request: int, at_ms: int, **changes: object) -> ArrivalRow:
    row = ArrivalRow(
        request=request, client="ann", pair="", replica=0, arrival_ns=at_ms * MS, num_prompt=10,
        max_new_tokens=16,
    )  # fmt: skip
    return row._replace(**changes)


def served(
    request: int, came: int, begun: int, read: int, first: int, end: int, kept: int,
    *, client: str = "ann", reason: str = "length", deadline: int | None = None, slot: int = 0,
) -> ArrivalRow:  # fmt: skip
    """A request that had a slot; times in milliseconds."""
    return arrival(
        request, came, client=client, slot=slot, admitted_ns=begun * MS, prefilled_ns=read * MS,
        first_token_ns=first * MS, ended_ns=end * MS, num_kept=kept, reason=reason,
        deadline_ns=None if deadline is None else deadline * MS,
    )  # fmt: skip


def tick(number: int, begin: int, end: int, kept: dict[int, int], *, waiting: int = 0) -> Tick:
    """A step in which each request of `kept` had 3 nodes; 30% drafting, 50% scoring."""
    took = (end - begin) * MS
    row = TickRow(
        tick=number, pair="", replica=0, begin_ns=begin * MS, end_ns=end * MS, waiting=waiting,
        active=len(kept), budget=None, nodes=3 * len(kept), draft_passes=2,
        draft_ns=took * 3 // 10, score_ns=took // 2, verify_ns=took // 10, commit_ns=0,
        rest_ns=took // 10,
    )  # fmt: skip
    shares = [
        ShareRow(request, slot, 3, 2, math.nan, max(0, tokens - 1), tokens)
        for slot, (request, tokens) in enumerate(kept.items())
    ]
    return Tick(row, shares)


#: two slots; 0 and 1 are served at once, 2 waits, 3 is given up waiting, 4 is refused
ARRIVALS = [
    served(0, 0, 0, 20, 120, 320, 5, deadline=400),
    served(1, 10, 20, 40, 120, 220, 4, client="bob", deadline=200, slot=1),
    served(2, 100, 220, 240, 320, 420, 3),
    arrival(3, 150, ended_ns=200 * MS, reason="cancelled"),
    arrival(4, 160, client="bob", ended_ns=160 * MS, reason="refused", message="Full."),
]
TICKS = [
    tick(0, 40, 120, {0: 2, 1: 1}),
    tick(1, 120, 220, {0: 0, 1: 3}, waiting=1),
    tick(2, 240, 320, {0: 3, 2: 1}),
    tick(3, 320, 420, {2: 2}),
]
