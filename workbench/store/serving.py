"""Reading how a run served its requests: the rows of `arrival`, `tick`, `share` and `lane`.

Frames have the store's columns. Runs that did not serve requests as they come, and files of older
formats, have none of these rows: their frames are empty.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from engine.serving.trace import ArrivalRow, LaneRow, ShareRow, Tick, TickRow
from workbench.store.reader import RunReader


def arrivals(run: RunReader) -> pd.DataFrame:
    """Requests in the order in which they came."""
    return _read(run, "arrival", "arrival_ns, request")


def ticks(run: RunReader) -> pd.DataFrame:
    """Steps of batches in the order in which they began."""
    return _read(run, "tick", "begin_ns, replica, tick")


def shares(run: RunReader) -> pd.DataFrame:
    """What each request had of each step."""
    return _read(run, "share", "replica, tick, slot")


def lanes(run: RunReader) -> pd.DataFrame:
    """Stretches of work by rank and lane, in the order in which they began."""
    return _read(run, "lane", "rank, begin_ns")


def serves(run: RunReader) -> bool:
    """Whether the run served requests as they come."""
    return run.holds("arrival") and not run.query("SELECT 1 FROM arrival LIMIT 1").empty


def arrival_rows(run: RunReader) -> list[ArrivalRow]:
    """Requests as the scheduler told of them last, in the order in which they came."""
    return [ArrivalRow(*row[1:]) for row in _plain(arrivals(run))]


def tick_rows(run: RunReader) -> list[Tick]:
    """Steps of batches, each with its shares, in the order in which they began."""
    found: dict[tuple[int, int], Tick] = {}
    for row in _plain(ticks(run)):
        one = TickRow(*row[1:])
        found[one.replica, one.tick] = Tick(one, [])
    for _, tick, replica, *share in _plain(shares(run)):
        one_share = ShareRow(*share)
        if one_share.bid is None:
            one_share = one_share._replace(bid=float("nan"))
        found[replica, tick].shares.append(one_share)
    return list(found.values())


def lane_rows(run: RunReader) -> list[LaneRow]:
    """Stretches of work by rank and lane."""
    return [LaneRow(*row[1:]) for row in _plain(lanes(run))]


def _read(run: RunReader, table: str, order: str) -> pd.DataFrame:
    return run.query(f"SELECT * FROM {run.source(table)} ORDER BY {order}")


def _plain(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Rows of plain Python values; None where a value is NULL."""
    columns = []
    for name in frame.columns:
        column = frame[name]
        missing = column.isna().to_numpy()
        whole = name.endswith("_ns") or column.dtype.kind in "iu" or name in _WHOLE
        values = column.to_list()
        columns.append(
            [
                None if gone else int(value) if whole else value
                for value, gone in zip(values, missing, strict=True)
            ]
        )
    return list(zip(*columns, strict=True))


#: columns of whole numbers beside times; pandas makes floats of those that hold NULL
_WHOLE = frozenset({"slot", "budget"})
