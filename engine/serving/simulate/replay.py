"""Given arrivals under the real scheduler and a simulated decoder: what a load would have met."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.errors import UserError
from engine.records import FinishReason
from engine.requests import Request
from engine.serving.errors import QueueFullError
from engine.serving.scheduler import MAX_WAITING, Scheduler
from engine.serving.simulate.decoder import SimulatedDecoder, VirtualClock
from engine.serving.simulate.model import StepModel
from engine.serving.trace import ArrivalRow, Order, Tick


class Simulated(NamedTuple):
    """The rows that a real run would have left."""

    arrivals: list[ArrivalRow]  # the last one of each request
    ticks: list[Tick]


def orders_of(arrivals: Iterable[ArrivalRow]) -> tuple[list[Order], dict[int, int]]:
    """The orders behind a run's rows as they came, and when those that were cancelled were."""
    last = {row.request: row for row in arrivals}
    rows = sorted(last.values(), key=lambda row: (row.arrival_ns, row.request))
    orders = [
        Order(
            Request(row.request, "", (0,) * row.num_prompt, row.max_new_tokens),
            row.arrival_ns,
            row.pair,
            row.client,
            row.deadline_ns,
            row.timeout_ns,
        )
        for row in rows
    ]
    cancels = {
        row.request: row.ended_ns
        for row in rows
        if row.reason == FinishReason.CANCELLED and row.ended_ns is not None
    }
    return orders, cancels


def replay(
    arrivals: Iterable[ArrivalRow],
    model: StepModel,
    *,
    num_slots: int,
    capacity: int,
    policy: str = "first-come",
    budgets: str = "auction",
    max_waiting: int = MAX_WAITING,
    seed: int = 0,
) -> Simulated:
    """What these arrivals would meet: a stored run's rows, say, of one pair.

    Requests run to their full length, as in runs that ignore EOS; cancels come when they came.
    """
    orders, cancels = orders_of(arrivals)
    clock = VirtualClock()
    decoder = SimulatedDecoder(
        model, clock=clock, num_slots=num_slots, capacity=capacity, seed=seed
    )
    name = orders[0].pair if orders else ""
    scheduler = Scheduler(
        {name: decoder}, policy=policy, budgets=budgets, max_waiting=max_waiting, clock=clock
    )
    rows: dict[int, ArrivalRow] = {}
    ticks: list[Tick] = []
    coming = iter(orders)
    pending = next(coming, None)
    calls = sorted((ns, index) for index, ns in cancels.items())
    while pending is not None or scheduler.busy:
        if not scheduler.busy and pending is not None:
            clock.wait_until(pending.arrival_ns)
        while pending is not None and pending.arrival_ns <= clock.ns:
            _submit(scheduler, pending)
            pending = next(coming, None)
        while calls and calls[0][0] <= clock.ns:
            scheduler.cancel(calls.pop(0)[1])
        told = scheduler.step()
        rows.update({row.request: row for row in told.arrivals})
        ticks += told.ticks
    return Simulated(list(rows.values()), ticks)


def _submit(scheduler: Scheduler, order: Order) -> None:
    try:
        scheduler.submit(order)
    except (UserError, QueueFullError):
        return  # the next step tells
