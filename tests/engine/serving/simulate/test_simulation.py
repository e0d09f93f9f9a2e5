"""The scheduler on a virtual clock: times reckoned by hand, methods held to each other."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import UserError
from engine.serving.simulate.decoder import SimulatedDecoder, VirtualClock
from engine.serving.simulate.fleet import ROUTERS, Fleet, Load
from engine.serving.simulate.model import StepModel
from engine.serving.simulate.replay import replay
from engine.serving.simulate.shapes import SPECINFER, Auction, Dynamic, Plain, Static
from engine.serving.trace import ArrivalRow
from tests.engine.serving.mocks import order
from tests.engine.serving.simulate.known import costs, measured

MS = 1_000_000


def rows(load: Load) -> list[ArrivalRow]:
    columns = zip(*(array.tolist() for array in load), strict=True)
    return [ArrivalRow(i, "", "", 0, at, p, t) for i, (at, p, t) in enumerate(columns)]


def model(shape, cost=None) -> StepModel:
    return StepModel(shape, cost or costs(), measured())


def shapes(cost) -> dict:
    steps = measured()
    return {
        "plain": Plain(),
        "static": Static(steps),
        "dynamic": Dynamic(steps, nodes=8, depth=4, width=3),
        "auction": Auction(steps, cost, depth=4, width=3),
    }


def test_plain_decoding_takes_the_time_of_its_passes():
    """5 ms of prefill each, then passes of one row, and of two where two are there."""
    load = Load(np.array([0, 0, 100 * MS]), np.array([5, 5, 5]), np.array([3, 1, 2]))
    told = replay(rows(load), model(Plain()), num_slots=2, capacity=64)
    last = {row.request: row for row in told.arrivals}
    assert last[0].prefilled_ns == 5 * MS
    assert last[1].prefilled_ns == 10 * MS
    assert last[1].ended_ns == last[0].first_token_ns == (10 + 12) * MS
    assert last[0].ended_ns == (10 + 12 + 11 + 11) * MS
    assert last[2].admitted_ns == 100 * MS
    assert last[2].ended_ns == (100 + 5 + 11 + 11) * MS
    assert [last[index].num_kept for index in range(3)] == [3, 1, 2]
    assert [(tick.row.active, tick.row.nodes) for tick in told.ticks] == [(2, 0)] + [(1, 0)] * 4


def test_a_drafted_step_takes_its_draft_passes_too():
    steps = measured()
    shape = Dynamic(steps, nodes=6, depth=3, width=2)
    load = Load(np.array([0]), np.array([1]), np.array([40]))
    told = replay(rows(load), model(shape), num_slots=1, capacity=64)
    row, shares = told.ticks[0]
    assert row.draft_ns == pytest.approx((1.1 + 1.2 + 1.2) * MS)
    assert row.score_ns == (10 + 1 + row.nodes) * MS
    assert row.draft_passes == 3
    assert 1 <= shares[0].depth <= 3
    assert shares[0].bid > 0
    kept = sum(tick.shares[0].kept for tick in told.ticks)
    assert kept == 40 == told.arrivals[0].num_kept
    assert len(told.ticks) < 40


def test_budgets_bound_the_trees():
    shape = Dynamic(measured(), nodes=8, depth=4, width=3)
    load = Load(np.zeros(2, int), np.array([2, 2]), np.array([30, 30]))
    settings = {"num_slots": 2, "capacity": 64}
    free = replay(rows(load), model(shape), **settings)
    tight = replay(rows(load), model(shape), budgets="round-robin:5", **settings)
    assert max(tick.row.nodes for tick in tight.ticks) <= 5
    assert max(tick.row.nodes for tick in free.ticks) > 5
    none = replay(rows(load), model(shape), budgets="fixed:0", **settings)
    assert {tick.row.draft_ns for tick in none.ticks} == {0}


def test_what_a_request_has_accepted_does_not_depend_on_the_batch():
    shape = Dynamic(measured(), nodes=8, depth=4, width=3)

    def steps_of(load: Load, index: int) -> list[int]:
        told = replay(rows(load), model(shape), num_slots=4, capacity=128, seed=9)
        shares = [share for tick in told.ticks for share in tick.shares]
        return [share.kept for share in shares if share.request == index]

    many = Load(np.arange(6) * MS, np.full(6, 3), np.full(6, 50))
    alone = Load(np.array([0, 10**12, 2 * 10**12]), np.full(3, 3), np.full(3, 50))
    assert steps_of(many, 2) == steps_of(alone, 2)


def test_the_auction_drafts_less_as_the_batch_grows_and_nothing_where_nodes_are_dear():
    steps, drafted = measured(), []
    cheap_then_dear = costs()
    auction = Auction(steps, cheap_then_dear, depth=4, width=2)
    for batch in (1, 4, 16):
        source, start = steps.walk(0, range(batch))
        nodes = [
            auction.choose(steps.at(source, start + at), context=40.0, budgets_B=None).nodes_B.sum()
            for at in range(0, 60, 3)
        ]
        drafted.append(np.mean(nodes) / batch)
    assert drafted[0] > drafted[1] > drafted[2]
    dear = costs(draft=(100.0, 0.0, 1.0))
    choice = Auction(steps, dear, depth=4, width=2).choose(
        steps.at(*steps.walk(0, range(3))), context=40.0, budgets_B=None
    )
    assert choice.nodes_B.sum() == 0
    assert choice.draft_rows == []


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_auction_is_as_fast_as_the_best_fixed_size(batch):
    steps = measured()
    load = Load(np.zeros(batch * 3, int), np.full(batch * 3, 4), np.full(batch * 3, 60))

    def speed(shape) -> float:
        told = replay(rows(load), model(shape), num_slots=batch, capacity=128)
        return 1e9 * load.tokens.sum() / max(row.ended_ns for row in told.arrivals)

    fixed = [speed(Dynamic(steps, nodes=n, depth=4, width=3)) for n in (1, 2, 4, 8, 16)]
    auction = speed(Auction(steps, costs(), depth=4, width=3))
    assert auction > 0.97 * max(*fixed, speed(Plain()))


def test_static_nodes_are_counted():
    choice = Static(measured()).choose(np.array([0, 1, 2]), context=1.0, budgets_B=None)
    assert choice.nodes_B.tolist() == [20, 20, 20]
    assert choice.draft_rows == [3, 3, 3, 9, 9, 9, 9, 9]
    assert len(choice.draft_rows) == len(SPECINFER)


def test_a_prompt_that_does_not_fit_is_refused():
    decoder = SimulatedDecoder(
        model(Plain()), clock=VirtualClock(), num_slots=1, capacity=10, seed=0
    )
    with pytest.raises(UserError, match="takes 10 with"):
        decoder.check(order(0, prompt=10).request)
    assert decoder.check(order(0, prompt=8, tokens=30).request) == 2


def test_cancels_come_when_they_came():
    load = Load(np.array([0, 0]), np.array([1, 1]), np.array([50, 50]))
    was = rows(load)
    was[1] = was[1]._replace(reason="cancelled", ended_ns=100 * MS)
    told = replay(was, model(Plain()), num_slots=2, capacity=64)
    last = {row.request: row for row in told.arrivals}
    assert (last[0].reason, last[1].reason) == ("length", "cancelled")
    assert 100 * MS <= last[1].ended_ns <= 112 * MS


@pytest.mark.parametrize("rate", [2.0, 12.0])  # often idle, often waiting
@pytest.mark.parametrize("prompt", [(2, 20), (100, 700)])  # together, and a few at a time
@pytest.mark.parametrize("name", ["plain", "static", "dynamic", "auction"])
def test_a_fleet_of_one_is_the_scheduler(name, prompt, rate):
    """Admissions, first tokens and ends to the nanosecond, drafted nodes and all."""
    cost = costs(rest=(0.3, 0.05, 0.001))
    load = Load.poisson(40, rate=rate, seed=4, prompt=prompt, tokens=(3, 60))
    shape = shapes(cost)[name]
    told = replay(rows(load), model(shape, cost), num_slots=4, capacity=1024, seed=5)
    last = {row.request: row for row in told.arrivals}
    served = Fleet(model(shape, cost), replicas=1, num_slots=4, seed=5).serve(load)
    for field in ("admitted_ns", "first_token_ns", "ended_ns"):
        wanted = [getattr(last[index], field) for index in range(40)]
        assert getattr(served, field).tolist() == wanted, field
    assert served.num_steps == len(told.ticks)
    assert served.drafted == sum(tick.row.nodes for tick in told.ticks)
    waited = max(tick.row.waiting for tick in told.ticks)
    assert waited > 2 if rate > 5 else waited < (2 if prompt[1] < 100 else 40)


@pytest.mark.parametrize("router", ROUTERS)
def test_a_fleet_serves_every_request_once(router):
    load = Load.poisson(300, rate=80.0, seed=1, prompt=(2, 20), tokens=(3, 60))
    served = Fleet(model(Plain()), replicas=8, num_slots=4, router=router).serve(load)
    assert (served.ended_ns >= served.first_token_ns).all()
    assert (served.first_token_ns > served.admitted_ns).all()
    assert (served.admitted_ns >= load.arrival_ns).all()
    assert set(served.replica) == set(range(8))
    assert served.request_steps == load.tokens.sum()
    assert served.busy_ns <= 8 * served.ended_ns.max()


def test_routers_that_look_beat_one_that_does_not():
    """Answers of very different length in turns: some replicas would get all the long ones."""
    count = 400
    load = Load.poisson(count, rate=18.0, seed=2, prompt=(2, 4), tokens=(2, 4))
    load = load._replace(tokens=np.where(np.arange(count) % 8 == 0, 150, 5))
    waits = {}
    for router in ROUTERS:
        served = Fleet(model(Plain()), replicas=8, num_slots=2, router=router).serve(load)
        waits[router] = np.quantile(served.admitted_ns - load.arrival_ns, 0.9)
    assert waits["predicted"] < 0.5 * waits["round-robin"]
    assert waits["shortest-queue"] < 0.5 * waits["round-robin"]


def test_an_unknown_router_is_refused():
    with pytest.raises(UserError, match="there are: predicted"):
        Fleet(model(Plain()), replicas=1, num_slots=1, router="best")


def test_poisson_arrivals_keep_their_rate():
    load = Load.poisson(4000, rate=50.0, seed=0, prompt=(5, 9), tokens=(1, 3))
    assert load.arrival_ns[-1] == pytest.approx(80e9, rel=0.06)
    assert (np.diff(load.arrival_ns) >= 0).all()
    assert set(load.prompt) == {5, 6, 7, 8, 9}
    assert set(load.tokens) == {1, 2, 3}
