"""Rows of runs that serve requests as they come: arrivals, ticks with their shares, lanes.

A request's arrival is told anew at each change; it is stored once, when it has ended, or at the
end of the run as far as it got.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from engine.serving.trace import ArrivalRow, LaneRow, Tick
from workbench.store.schema import TABLES

_ARROW = {
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
}


class ServingBuffer:
    """What was told and is not yet written. Filled by the scheduler's loop, emptied by the writer.

    Both ends may be used at once by a thread each: all that the first does is append.
    """

    def __init__(self) -> None:
        self._told: deque[ArrivalRow | Tick | LaneRow] = deque()
        self._open: dict[int, ArrivalRow] = {}  # requests that have not ended
        self._written: set[int] = set()  # requests whose row is in the file

    def tell(self, rows: Iterable[ArrivalRow | Tick | LaneRow]) -> None:
        """Keep rows. Costs an append for each."""
        self._told.extend(rows)

    @property
    def waiting(self) -> bool:
        """Whether something was told that no table was made of."""
        return bool(self._told)

    @property
    def unended(self) -> bool:
        """Whether requests are under way whose rows only `tables(last=True)` gives."""
        return bool(self._open)

    def tables(self, run: str, *, last: bool = False) -> Iterator[tuple[str, pa.Table, list[int]]]:
        """Table, its rows, and requests whose older rows they replace.

        `last` gives the rows of requests that never ended as well.
        """
        ended: dict[int, ArrivalRow] = {}
        ticks: list[Tick] = []
        lanes: list[LaneRow] = []
        for _ in range(len(self._told)):
            match self._told.popleft():
                case ArrivalRow() as row:
                    (ended if row.reason is not None else self._open)[row.request] = row
                    (self._open if row.reason is not None else ended).pop(row.request, None)
                case Tick() as tick:
                    ticks.append(tick)
                case LaneRow() as lane:
                    lanes.append(lane)
        if last:
            ended |= self._open
            self._open.clear()
        if ended:
            again = [request for request in ended if request in self._written]
            self._written.update(ended)
            yield "arrival", arrival_table(run, ended.values()), again
        if ticks:
            yield "tick", tick_table(run, ticks), []
            if any(tick.shares for tick in ticks):
                yield "share", share_table(run, ticks), []
        if lanes:
            yield "lane", lane_table(run, lanes), []


def arrival_table(run: str, rows: Iterable[ArrivalRow]) -> pa.Table:
    """Rows of `arrival`."""
    return _table("arrival", ((run, *row) for row in rows))


def tick_table(run: str, ticks: Iterable[Tick]) -> pa.Table:
    """Rows of `tick`."""
    return _table("tick", ((run, *tick.row) for tick in ticks))


def share_table(run: str, ticks: Iterable[Tick]) -> pa.Table:
    """Rows of `share`; a bid of NaN, which means that nothing was expected, becomes NULL."""
    rows = (
        (run, tick.row.tick, tick.row.replica, *share) for tick in ticks for share in tick.shares
    )
    return _table("share", rows)


def lane_table(run: str, rows: Iterable[LaneRow]) -> pa.Table:
    """Rows of `lane`."""
    return _table("lane", ((run, *row) for row in rows))


def _table(name: str, rows: Iterable[tuple[Any, ...]]) -> pa.Table:
    """Rows as columns of the types of the store's table."""
    columns = list(zip(*rows, strict=True))
    return pa.table(
        {
            column: pa.array(values, _ARROW[kind], from_pandas=True)
            for (column, kind), values in zip(TABLES[name].items(), columns, strict=True)
        }
    )
