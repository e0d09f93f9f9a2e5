"""Nodes shared out among the requests of a batch."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import UserError
from engine.serving.budgets import Proportional, RoundRobin, budgets_named, divide
from engine.serving.entries import Entry, Pair
from engine.serving.scheduler import Scheduler
from engine.serving.trace import ArrivalRow
from tests.engine.serving.mocks import Clock, MockDecoder, order


def entries(*accepted: float) -> list[Entry]:
    pair = Pair("", MockDecoder())
    return [
        Entry(order(i), ArrivalRow(i, "", "", 0, 0, 3, 4), pair, number=i, accepted=mean)
        for i, mean in enumerate(accepted)
    ]


def test_shares_are_exact_and_in_proportion():
    rng = np.random.default_rng(0)
    for _ in range(500):
        weights = rng.random(rng.integers(1, 20)) * rng.choice([0.0, 1.0, 10.0], 1)
        total = int(rng.integers(0, 300))
        shares = divide(total, weights.tolist())
        assert sum(shares) == total
        assert min(shares) >= 0
        quotas = total * weights / weights.sum() if weights.sum() else [total / len(weights)]
        assert np.all(np.abs(np.asarray(shares) - quotas) < 1.0)
    assert divide(5, []) == []


def test_proportional_follows_what_was_accepted():
    assert Proportional(12).share(entries(3.0, 1.0, 2.0)) == {0: 6, 1: 2, 2: 4}
    assert Proportional(9).share(entries(0.0, 0.0, 0.0)) == {0: 3, 1: 3, 2: 3}


def test_a_request_that_had_nothing_is_tried_again():
    """One that accepted nothing gets no nodes, and after a while without any it gets some."""
    hopeless, fine = entries(0.0, 4.0)
    shares = Proportional(8)
    waited = 0
    while not shares.share([hopeless, fine])[0]:
        hopeless.learn(drafted=0, accepted=0)
        waited += 1
        assert waited < 50
    assert waited > 3


def test_round_robin_hands_the_rest_out_in_turns():
    shares, batch = RoundRobin(5), entries(1, 1, 1)
    had = np.zeros(3, int)
    for _ in range(9):
        now = shares.share(batch)
        assert sum(now.values()) == 5
        assert set(now.values()) == {1, 2}
        had += [now[index] for index in range(3)]
    assert had.tolist() == [15, 15, 15]


def test_round_robin_is_even_for_pairs_that_step_in_alternation():
    shares, pairs = RoundRobin(1), [entries(1, 1), entries(1, 1)]
    had = np.zeros((2, 2), int)
    for _ in range(10):
        for at, batch in enumerate(pairs):
            now = shares.share(batch)
            had[at] += [now[index] for index in range(2)]
    assert had.tolist() == [[5, 5], [5, 5]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("auction", None), ("fixed:3", [3, 3]), ("proportional:8", [4, 4]), ("round-robin:6", [3, 3])],
)
def test_the_decoder_is_told(text, wanted):
    clock = Clock()
    decoder = MockDecoder(2, clock=clock, accepts=9)
    scheduler = Scheduler({"": decoder}, budgets=text, clock=clock)
    for index in range(2):
        scheduler.submit(order(index, tokens=30))
    row = scheduler.step().ticks[0].row
    told = decoder.budgets[0]
    assert (told and list(told.values())) == wanted
    assert row.budget == (wanted and sum(wanted))
    assert row.nodes == (sum(wanted) if wanted else 18)


@pytest.mark.parametrize(
    ("text", "said"),
    [("greedy", "are unknown"), ("auction:4", "are unknown"), ("fixed", "say fixed:16"),
     ("fixed:-1", "lack their number"), ("proportional:x", "lack their number")],
)  # fmt: skip
def test_what_is_no_budget_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        budgets_named(text)
