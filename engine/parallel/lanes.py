"""What each rank did when: stretches of work on a clock that all ranks have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from engine.serving.trace import LaneRow

#: questions and answers by which another process's clock is set against ours
PINGS = 8


class Lanes:
    """Notes of one rank. `offset_ns` is added to its own clock; `step` is counted by its owner."""

    def __init__(self, rank: int = 0, *, synchronize: Callable[[], None] = lambda: None) -> None:
        self.rank = rank
        self.step = -1
        self._synchronize = synchronize
        self._rows: list[LaneRow] = []

    @contextmanager
    def note(self, lane: str, what: str) -> Iterator[None]:
        """Note what runs inside; on a device until it is done."""
        begin = perf_counter_ns()
        try:
            yield
        finally:
            self._synchronize()
            end = perf_counter_ns()
            self._rows.append(LaneRow(self.rank, lane, what, max(self.step, 0), begin, end))

    def take(self) -> list[LaneRow]:
        """What was noted since this was last asked, on this rank's clock."""
        rows, self._rows = self._rows, []
        return rows


def shifted(rows: list[LaneRow], offset_ns: int) -> list[LaneRow]:
    """The same stretches on a clock that shows `offset_ns` more."""
    return [
        row._replace(begin_ns=row.begin_ns + offset_ns, end_ns=row.end_ns + offset_ns)
        for row in rows
    ]


def clock_offset(ask: Callable[[], int]) -> tuple[int, int]:
    """What another clock shows more than ours, and how far that may be off, in nanoseconds.

    Of several answers the quickest is believed: it lay half its way back (Cristian, 1989).
    """
    best: tuple[int, int] | None = None
    for _ in range(PINGS):
        begin = perf_counter_ns()
        theirs = ask()
        end = perf_counter_ns()
        if best is None or end - begin < 2 * best[1]:
            best = (theirs - (begin + end) // 2, (end - begin + 1) // 2)
    assert best is not None
    return best
