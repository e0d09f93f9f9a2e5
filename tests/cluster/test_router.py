"""The router by itself: a made-up fleet that loses replicas at random, on a made-up clock."""

from __future__ import annotations

import random

import pytest

from engine.cluster.rates import Rates, finish_ns
from engine.cluster.router import Limits, Router
from engine.errors import UserError
from engine.records import FinishReason, RequestRecord
from engine.requests import Request
from engine.serving.scheduler import Changes
from engine.serving.trace import ArrivalRow, Order, ShareRow, Tick, TickRow

MS = 1_000_000


def order(index: int, *, tokens: int = 20, prompt: int = 4, at: int = 0, **more) -> Order:
    request = Request(index, "", tuple(range(1, 1 + prompt)), tokens)
    return Order(request, at, **more)


def record(index: int, tokens: list[int]) -> RequestRecord:
    return RequestRecord(
        request=index, question_id="", category="", turn=0, repeat=0, prompt="", prompt_ids=[],
        token_ids=tokens, text="", finish_reason=FinishReason.LENGTH, num_steps=1, num_emitted=1,
        num_drafted=0, num_accepted=0, prefill_ns=0, decode_ns=0, repetition=0.0,
    )  # fmt: skip


class MadeUpReplica:
    """Decodes `tokens` per request and step, `step_ns` a step, the first `slots` of what it has."""

    def __init__(self, number: int, *, slots: int = 2, step_ns: int = 10 * MS, tokens: int = 2):
        self.number, self.slots, self.step_ns, self.tokens = number, slots, step_ns, tokens
        self.orders: dict[int, Order] = {}
        self.kept: dict[int, int] = {}
        self.ticks = 0
        self.cancelled: set[int] = set()

    def row(self, wanted: Order, **more) -> ArrivalRow:
        request = wanted.request
        return ArrivalRow(
            request.index, wanted.client, wanted.pair, 0, wanted.arrival_ns,
            len(request.prompt_ids), request.max_new_tokens, **more,
        )  # fmt: skip

    def step(self, now: int) -> tuple[list[ArrivalRow], list[Tick], list[RequestRecord]]:
        rows, records = [], []
        for index in self.cancelled & set(self.orders):
            rows.append(self.row(self.orders.pop(index), ended_ns=now, reason="cancelled"))
            self.kept.pop(index, None)
        batch = list(self.orders)[: self.slots]
        shares = []
        for index in batch:
            wanted, before = self.orders[index], self.kept.get(index, 0)
            kept = min(self.tokens, wanted.request.max_new_tokens - before)
            self.kept[index] = before + kept
            shares.append(ShareRow(index, 0, 3, 2, float("nan"), kept - 1, kept))
            times = {"admitted_ns": now, "prefilled_ns": now + 1, "num_kept": before + kept}
            if self.kept[index] == wanted.request.max_new_tokens:
                rows.append(self.row(wanted, **times, ended_ns=now, reason="length"))
                records.append(record(index, [index] * wanted.request.max_new_tokens))
                del self.orders[index], self.kept[index]
            else:
                rows.append(self.row(wanted, **times))
        begin = now - self.step_ns
        row = TickRow(self.ticks, "", 0, begin, now, 0, len(batch), None, 0, 0, 0, 0, 0, 0, 0)
        self.ticks += 1
        return rows, [Tick(row, shares)] if batch else [], records


class MadeUpFleet:
    """Router and made-up replicas; notes every end and every record."""

    def __init__(self, router: Router):
        self.router, self.now = router, 0
        self.replicas: dict[int, MadeUpReplica] = {}
        self.due: dict[int, int] = {}
        self.ends: dict[int, list[ArrivalRow]] = {}
        self.records: dict[int, list[RequestRecord]] = {}
        self.places: dict[int, list[int]] = {}

    def add(self, replica: MadeUpReplica) -> None:
        self.replicas[replica.number] = replica
        self.due[replica.number] = self.now + replica.step_ns
        self.router.add(replica.number, slots=replica.slots, now_ns=self.now)

    def lose(self, number: int) -> MadeUpReplica:
        self.router.lost(number, "it was killed", self.now)
        del self.due[number]
        return self.replicas.pop(number)

    def assign(self) -> dict[int, list[int]]:
        sent: dict[int, list[int]] = {}
        for number, orders in self.router.assign(self.now).items():
            for wanted in orders:
                self.places.setdefault(wanted.request.index, []).append(number)
                self.replicas[number].orders[wanted.request.index] = wanted
                sent.setdefault(number, []).append(wanted.request.index)
        return sent

    def turn(self) -> None:
        """Move on to the next step that ends."""
        self.assign()
        if self.due:
            number = min(self.due, key=lambda n: (self.due[n], n))
            self.now = self.due[number]
            self.tell(self.replicas[number])
            self.due[number] = self.now + self.replicas[number].step_ns
        self.router.expire(self.now)
        self.collect()

    def tell(self, replica: MadeUpReplica) -> None:
        rows, ticks, records = replica.step(self.now)
        self.router.told(replica.number, Changes(rows, ticks, [], records), self.now)

    def collect(self) -> None:
        changes = self.router.take_changes()
        for row in changes.arrivals:
            if row.ended_ns is not None:
                self.ends.setdefault(row.request, []).append(row)
        for done in changes.finished:
            self.records.setdefault(done.request, []).append(done)

    def run(self) -> None:
        for _ in range(20_000):
            if not self.router.unfinished:
                return
            self.turn()
        raise AssertionError(f"{self.router.unfinished} requests never ended")


@pytest.mark.parametrize("policy", ["predicted", "shortest-queue", "round-robin"])
@pytest.mark.parametrize("seed", range(12))
def test_every_request_ends_exactly_once_whatever_is_lost(policy, seed):
    rng = random.Random(seed)
    limits = Limits(depth=rng.choice([1.0, 2.0, 4.0]), losses=rng.choice([1, 2, 3]))
    fleet = MadeUpFleet(Router(policy=policy, limits=limits))
    for number in range(3):
        fleet.add(MadeUpReplica(number, slots=rng.choice([1, 3]), step_ns=rng.randint(5, 20) * MS))
    wanted = [order(i, tokens=rng.randint(1, 40)) for i in range(60)]
    gone: list[MadeUpReplica] = []
    cancelled: set[int] = set()
    upcoming, next_number = list(wanted), 3
    while upcoming or fleet.router.unfinished:
        for _ in range(rng.randint(0, 3)):
            if upcoming:
                fleet.router.submit(upcoming.pop(0), fleet.now)
        draw = rng.random()
        if draw < 0.04 and len(fleet.replicas) > 1:
            gone.append(fleet.lose(rng.choice(list(fleet.replicas))))
        elif draw < 0.08 and len(fleet.replicas) < 4:
            fleet.add(MadeUpReplica(next_number, slots=2, step_ns=rng.randint(5, 20) * MS))
            next_number += 1
        elif draw < 0.12:
            index = rng.randrange(60)
            if index not in [w.request.index for w in upcoming] and index not in fleet.ends:
                at = fleet.router.cancel(index, fleet.now)
                cancelled.add(index)
                if at is not None:
                    fleet.replicas[at].cancelled.add(index)
        for ghost in gone:  # a replica that was declared dead goes on telling
            fleet.tell(ghost)
        fleet.turn()
        fleet.router.check_integrity()
        held = [fleet.router.held(n) for n in fleet.router.replicas]
        everywhere = [i for indices in held for i in indices]
        assert len(everywhere) == len(set(everywhere))
        for indices in held:  # one that is suspected is by itself
            assert len(indices) == 1 or not any(fleet.router.alone(i) for i in indices)
    assert sorted(fleet.ends) == list(range(60))
    assert all(len(ends) == 1 for ends in fleet.ends.values())
    for index, (row,) in fleet.ends.items():
        if row.reason == "length":
            (done,) = fleet.records[index]
            assert done.token_ids == [index] * wanted[index].request.max_new_tokens
            assert row.attempts == len(fleet.places[index])
        else:
            assert row.reason == "lost" or index in cancelled
            assert index not in fleet.records
    assert sum(row.reason == "length" for (row,) in fleet.ends.values()) > 30


def test_requests_of_a_lost_replica_keep_their_place_in_line():
    fleet = MadeUpFleet(Router(policy="round-robin", limits=Limits(depth=1.0)))
    fleet.add(MadeUpReplica(0))
    for i in range(4):
        fleet.router.submit(order(i), 0)
    fleet.turn()
    assert fleet.router.held(0) == [0, 1]
    fleet.lose(0)
    fleet.add(MadeUpReplica(1))
    assert fleet.assign() == {1: [0, 1]}
    rows = {row.request: row for row in fleet.router.take_changes().arrivals}
    assert (rows[0].attempts, rows[0].replica, rows[0].admitted_ns) == (2, 1, None)


def test_what_a_dead_replica_tells_later_is_ignored():
    fleet = MadeUpFleet(Router())
    fleet.add(MadeUpReplica(0))
    fleet.router.submit(order(0, tokens=2), 0)
    fleet.router.assign(0)
    ghost = fleet.lose(0)
    ghost.orders[0] = order(0, tokens=2)
    fleet.tell(ghost)
    fleet.collect()
    assert not fleet.ends
    assert not fleet.records
    fleet.add(MadeUpReplica(1))
    fleet.run()
    assert fleet.ends[0][0].replica == 1
    assert len(fleet.records[0]) == 1


def test_a_request_that_ends_replicas_is_found_out_and_those_beside_it_are_served():
    fleet = MadeUpFleet(Router(limits=Limits(depth=3.0)))
    for i in range(6):
        fleet.router.submit(order(i), 0)
    number = 0
    while fleet.router.unfinished:
        if not fleet.replicas:
            fleet.add(MadeUpReplica(number, slots=2))
            number += 1
            assert number < 10, "a request that ends replicas is tried for ever"
        fleet.turn()
        if fleet.replicas and 3 in fleet.replicas[number - 1].kept:
            fleet.lose(number - 1)
            fleet.collect()
    assert number == 4  # three that it ended, and the last one
    (row,) = fleet.ends[3]
    assert (row.reason, row.attempts) == ("lost", 3)
    assert "with a replica of its own because it was killed" in row.message
    assert [fleet.ends[i][0].reason for i in (0, 1, 2, 4, 5)] == ["length"] * 5


def test_others_pass_by_a_request_that_waits_for_a_replica_of_its_own():
    fleet = MadeUpFleet(Router(policy="round-robin", limits=Limits(depth=1.0, losses=1)))
    fleet.add(MadeUpReplica(0))
    fleet.router.submit(order(0), 0)
    fleet.assign()
    fleet.lose(0)
    for number in (1, 2):
        fleet.add(MadeUpReplica(number))
    for i in (1, 2, 3):
        fleet.router.submit(order(i), 0)
    assert fleet.assign() == {1: [0], 2: [1, 2]}
    fleet.router.submit(order(4), 0)
    assert fleet.assign() == {}
    fleet.run()
    assert len(fleet.ends) == 5
    assert fleet.ends[0][0].attempts == 2


def test_a_cancelled_request_stays_cancelled_when_its_replica_is_lost():
    fleet = MadeUpFleet(Router())
    fleet.add(MadeUpReplica(0))
    fleet.router.submit(order(0), 0)
    fleet.turn()
    assert fleet.router.cancel(0, fleet.now) == 0
    assert fleet.router.cancel(0, fleet.now) is None
    fleet.lose(0)
    fleet.collect()
    assert fleet.ends[0][0].reason == "cancelled"
    assert not fleet.router.unfinished


def test_full_replicas_hold_requests_back_and_a_full_queue_refuses():
    fleet = MadeUpFleet(Router(limits=Limits(queue=2, depth=1.0)))
    fleet.add(MadeUpReplica(0, slots=2))
    for i in range(2):
        fleet.router.submit(order(i), 0)
    assert fleet.assign() == {0: [0, 1]}
    for i in range(2, 5):
        fleet.router.submit(order(i), 0)
    assert fleet.assign() == {}
    fleet.collect()
    (row,) = fleet.ends[4]
    assert row.reason == "refused"
    assert "2 requests are waiting" in row.message
    fleet.run()
    assert all(fleet.ends[i][0].reason == "length" for i in range(4))


def test_a_request_whose_time_ran_out_in_the_queue_ends():
    fleet = MadeUpFleet(Router(limits=Limits(depth=1.0)))
    fleet.add(MadeUpReplica(0, slots=1))
    fleet.router.submit(order(0, tokens=100), 0)
    fleet.router.submit(order(1, timeout_ns=25 * MS), 0)
    fleet.run()
    assert fleet.ends[1][0].reason == "timed-out"
    assert fleet.ends[1][0].ended_ns == 30 * MS


def test_with_no_replica_left_what_waits_is_given_up_with_the_reason():
    router = Router()
    router.submit(order(0), 0)
    router.give_up("No replica is left.", 7)
    row = router.take_changes().arrivals[-1]
    assert (row.reason, row.message, row.ended_ns) == ("lost", "No replica is left.", 7)


def test_a_draining_replica_ends_what_it_has_and_gets_no_more():
    fleet = MadeUpFleet(Router(policy="round-robin"))
    fleet.add(MadeUpReplica(0))
    fleet.add(MadeUpReplica(1))
    for i in range(8):
        if i == 4:
            fleet.router.drain(0)
        fleet.router.submit(order(i), 0)
        fleet.turn()
    fleet.run()
    assert all(fleet.places[i] == [1] for i in range(4, 8))
    assert any(fleet.places[i] == [0] for i in range(4))
    fleet.router.remove(0)
    assert fleet.router.replicas == [1]


def test_ties_go_to_the_emptier_and_then_to_the_lower_number():
    router = Router()
    for number in (3, 1, 2):
        router.add(number, slots=2, now_ns=0)
    for i in range(4):
        router.submit(order(i), 0)
    sent = router.assign(0)
    assert [[o.request.index for o in sent[n]] for n in (1, 2, 3)] == [[0, 3], [1], [2]]


def mean_time(policy: str) -> float:
    """Mean time to finish on two fast replicas and a slow one, under 0.7 of their capacity."""
    rng = random.Random(4)
    fleet = MadeUpFleet(Router(policy=policy, limits=Limits(depth=6.0)))
    for number, step in enumerate((8 * MS, 8 * MS, 40 * MS)):
        fleet.add(MadeUpReplica(number, slots=2, step_ns=step))
    upcoming, at = [], 0
    for i in range(300):
        at += int(rng.expovariate(1 / (36 * MS)))
        upcoming.append(order(i, tokens=rng.choice([4, 8, 60]), at=at))
    arrivals = {o.request.index: o.arrival_ns for o in upcoming}
    while upcoming or fleet.router.unfinished:
        while upcoming and upcoming[0].arrival_ns <= fleet.now:
            fleet.router.submit(upcoming.pop(0), fleet.now)
        fleet.turn()
    return sum(fleet.ends[i][0].ended_ns - a for i, a in arrivals.items()) / len(arrivals)


def test_predicted_time_beats_short_queues_and_turns_on_unequal_replicas():
    predicted, queue, turns = (
        mean_time(policy) for policy in ("predicted", "shortest-queue", "round-robin")
    )
    assert predicted < 0.9 * queue
    assert queue < turns


def test_a_silent_replica_counts_as_slower():
    router = Router()
    for number in range(2):
        router.add(number, slots=4, now_ns=0)
    for i in range(2):
        router.submit(order(i), 0)
    router.assign(0)
    late = 5_000 * MS
    router.told(1, Changes([], [], [], []), late)
    for i in range(2, 5):
        router.submit(order(i), late)
    assert set(router.assign(late)) == {1}


def test_what_a_living_replica_could_not_go_on_with_is_tried_elsewhere():
    fleet = MadeUpFleet(Router(policy="round-robin"))
    for number in range(2):
        fleet.add(MadeUpReplica(number))
    fleet.router.submit(order(0), 0)
    for number in (0, 1, 0):
        assert fleet.assign() == {number: [0]}
        row = fleet.replicas[number].row(order(0), admitted_ns=1, ended_ns=2)
        gave_up = row._replace(reason="lost", message="Logits are NaN.")
        fleet.router.told(number, Changes([gave_up], [], [], []), 3)
    fleet.collect()
    (end,) = fleet.ends[0]
    assert (end.reason, end.attempts) == ("lost", 3)
    assert "because Logits are NaN. It may" in end.message


def test_an_unknown_router_is_refused():
    with pytest.raises(UserError, match="there are: predicted, shortest-queue, round-robin"):
        Router(policy="fastest")


def test_rates_recover_the_line_that_steps_follow():
    rates = Rates()
    for i in range(200):
        active = 1 + i % 6
        rates.note_step(active, (5 + 3 * active) * MS, 2 * active)
        rates.note_prefill(10, 40 * MS)
    assert rates.step_ns(8) == pytest.approx(29 * MS)
    assert rates.token_ns(2) == pytest.approx(5.5 * MS)
    # six ahead in four slots with 60 tokens left: half of those must go, then 10 of its own
    expected = 0.5 * 60 * (17 / 2) / 4 + (7 + 3) * 4 + 10 * (17 / 2)
    found = finish_ns(rates, slots=4, requests=6, tokens=60, prompts=7, own=10, prompt=3)
    assert found == pytest.approx(expected * MS)


def test_rates_follow_a_replica_that_turns_slow():
    rates = Rates()
    for duration in [10 * MS] * 100 + [50 * MS] * 200:
        rates.note_step(3, duration, 3)
    assert rates.step_ns(3) == pytest.approx(50 * MS, rel=0.05)
