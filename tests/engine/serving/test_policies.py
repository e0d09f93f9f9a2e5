"""Who is admitted next, and that nobody waits for ever."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import UserError
from engine.serving.policies import POLICIES, ShortestFirst, policy_named
from engine.serving.scheduler import Scheduler
from tests.engine.serving.mocks import SECOND, Clock, MockDecoder, order


def admitted(policy, orders, *, num_slots: int = 1):
    """The order in which orders that come at their times are admitted, and their last rows."""
    clock = Clock()
    decoder = MockDecoder(num_slots, clock=clock, step_seconds=0.1)
    scheduler = Scheduler({"": decoder}, policy=policy, clock=clock, max_waiting=10_000)
    waiting, rows = sorted(orders, key=lambda one: one.arrival_ns), {}
    while waiting or scheduler.busy:
        if not scheduler.busy:
            clock.ns = max(clock.ns, waiting[0].arrival_ns)
        while waiting and waiting[0].arrival_ns <= clock.ns:
            scheduler.submit(waiting.pop(0))
        for row in scheduler.step().arrivals:
            rows[row.request] = row
    return decoder.order, rows


def test_first_come_is_as_they_came():
    orders = [order(i, tokens=10 - i, at=0.01 * i) for i in range(6)]
    assert admitted("first-come", orders)[0] == [0, 1, 2, 3, 4, 5]


def test_shortest_first_counts_prompt_and_answer():
    orders = [
        order(0, tokens=2, prompt=1), order(1, tokens=30, prompt=10), order(2, tokens=4, prompt=40),
        order(3, tokens=20, prompt=2), order(4, tokens=20, prompt=2),
    ]  # fmt: skip
    assert admitted("shortest-first", orders)[0] == [0, 3, 4, 1, 2]


def test_shortest_first_lets_nothing_starve():
    """Under a flood of short ones a long one waits its bounded time; without ageing it waits on."""
    long = order(0, tokens=60, prompt=20, at=0.5)
    flood = [order(i, tokens=2, prompt=1, at=0.1 * i) for i in range(1, 400)]
    begun, rows = admitted(ShortestFirst(ageing=10.0), [long, *flood])
    # 80 tokens at 10 a second: at most those of the next 8 s may pass it, less the size of each
    overtaking = begun[: begun.index(0)]
    latest = max(flood[index - 1].arrival_ns for index in overtaking)
    assert latest - long.arrival_ns <= (80 - 3) / 10.0 * SECOND
    assert 7.0 * SECOND < rows[0].admitted_ns - long.arrival_ns < 10.0 * SECOND
    begun, _ = admitted(ShortestFirst(ageing=1e-9), [long, *flood])
    assert begun[-1] == 0


def test_ageing_takes_a_rate():
    with pytest.raises(UserError, match="more than 0"):
        ShortestFirst(ageing=0.0)


def test_deadline_takes_the_earliest_first_and_those_without_last():
    orders = [
        order(0), order(1), order(2, deadline=9.0), order(3, deadline=5.0),
        order(4, deadline=7.0), order(5),
    ]  # fmt: skip
    assert admitted("deadline", orders)[0] == [3, 4, 2, 0, 1, 5]


def test_deadlines_are_met_that_first_come_misses():
    rng = np.random.default_rng(3)
    orders = [
        order(i, tokens=4, at=0.0, deadline=float(at))
        for i, at in enumerate(rng.permutation(20) * 0.2 + 0.2)
    ]
    late = {}
    for policy in ("first-come", "deadline"):
        rows = admitted(policy, orders)[1].values()
        late[policy] = sum(row.ended_ns > row.deadline_ns for row in rows)
    assert late["deadline"] == 0
    assert late["first-come"] > 5


def test_fair_takes_clients_in_turn():
    orders = [order(i, client="many") for i in range(6)] + [
        order(6 + i, client=client, at=0.01) for i, client in enumerate(("few", "few", "one"))
    ]
    begun, rows = admitted("fair", orders)
    assert begun[0] == 0
    assert begun == [0, 6, 8, 1, 7, 2, 3, 4, 5]
    first_come = admitted("first-come", orders)[1]
    for client in ("few", "one"):
        assert waited_s(rows, client) < waited_s(first_come, client)


def waited_s(rows, client: str) -> float:
    """Mean seconds from arrival to admission."""
    own = [row for row in rows.values() if row.client == client]
    return sum(row.admitted_ns - row.arrival_ns for row in own) / len(own) / SECOND


@pytest.mark.parametrize("policy", list(POLICIES))
def test_under_every_policy_everything_ends(policy):
    rng = np.random.default_rng(5)
    orders = [
        order(i, tokens=int(rng.integers(1, 20)), at=float(rng.random() * 3), client=str(i % 3))
        for i in range(80)
    ]
    begun, rows = admitted(policy, orders, num_slots=3)
    assert sorted(begun) == list(range(80))
    assert all(row.num_kept == row.max_new_tokens for row in rows.values())


def test_an_unknown_policy_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="'longest' is unknown; there are: first-come"):
        policy_named("longest")
