"""Serves orders with a fleet, step by step, and looks at what is left afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from engine.cluster.fleet import Fleet
from engine.records import RequestRecord
from engine.serving.trace import ArrivalRow, Order, Tick

#: a whole test, on a machine several times slower than usual
PATIENCE_S = 400


class Served:
    """What a fleet told."""

    def __init__(self) -> None:
        self.rows: list[ArrivalRow] = []
        self.ticks: list[Tick] = []
        self.records: dict[int, list[RequestRecord]] = {}
        self.steps: dict[int, int] = {}

    @property
    def ends(self) -> dict[int, list[ArrivalRow]]:
        found: dict[int, list[ArrivalRow]] = {}
        for row in self.rows:
            if row.ended_ns is not None:
                found.setdefault(row.request, []).append(row)
        return found

    @property
    def tokens(self) -> dict[int, list[int]]:
        return {index: records[0].token_ids for index, records in self.records.items()}

    def take(self, changes: Any) -> None:
        self.rows += changes.arrivals
        self.ticks += changes.ticks
        for step in changes.steps:
            self.steps[step.request] = self.steps.get(step.request, 0) + 1
        for record in changes.finished:
            self.records.setdefault(record.request, []).append(record)

    def under_way(self, replica: int) -> set[int]:
        """Requests that the newest rows say are under way at a replica."""
        newest = {row.request: row for row in self.rows}
        return {
            row.request
            for row in newest.values()
            if row.replica == replica and row.admitted_ns is not None and row.ended_ns is None
        }


def serve(
    fleet: Fleet, wanted: list[Order], *, each_step: Callable[[Served], None] = lambda served: None
) -> Served:
    """Submit all at once and step until nothing is left."""
    served, until = Served(), time.monotonic() + PATIENCE_S
    for order in wanted:
        fleet.submit(order._replace(arrival_ns=fleet.now()))
    while fleet.busy:
        assert time.monotonic() < until, f"{fleet.running} under way, {fleet.waiting} wait"
        served.take(fleet.step())
        each_step(served)
    return served


def check_ends(served: Served, wanted: list[Order]) -> None:
    """Every order ended exactly once, with one record and each of its steps told once."""
    ends = served.ends
    assert sorted(ends) == [order.request.index for order in wanted]
    assert all(len(rows) == 1 for rows in ends.values())
    for index, records in served.records.items():
        assert len(records) == 1
        assert records[0].num_steps == served.steps[index]
        row = ends[index][0]
        assert row.num_kept == len(records[0].token_ids)
        assert row.arrival_ns <= row.admitted_ns <= row.first_token_ns <= row.ended_ns
    numbered = [(tick.row.replica, tick.row.tick) for tick in served.ticks]
    assert len(set(numbered)) == len(numbered)


def our_processes() -> set[int]:
    """Everything that this process has started and that has not ended."""
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
    }


def wait_until_gone(before: set[int], *, seconds: float = 20.0) -> None:
    """No process is there that was not there before."""
    until = time.monotonic() + seconds
    while (left := our_processes() - before) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left, [psutil.Process(pid).cmdline() for pid in left if psutil.pid_exists(pid)]
