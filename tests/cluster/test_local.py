"""Replicas as processes of this machine, killed, stopped and poisoned under load."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest

from engine.cluster.fleet import Fleet, FleetOptions
from engine.cluster.mail import ReplicaSpec
from engine.cluster.member import Patience
from engine.cluster.router import Limits
from engine.errors import DecodeError, UserError
from engine.serving.errors import QueueFullError
from tests.cluster.builders import SLOTS, expected, orders
from tests.cluster.serving import Served, check_ends, our_processes, serve, wait_until_gone

pytestmark = pytest.mark.slow


def spec(**arguments) -> ReplicaSpec:
    return ReplicaSpec("tests.cluster.builders:build", arguments)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    before, threads = our_processes(), threading.active_count()
    yield
    wait_until_gone(before)
    assert threading.active_count() == threads


def test_replicas_killed_or_hanging_under_load_cost_no_request_and_new_ones_take_their_places(
    caplog,
):
    wanted, lost, told = orders(24), {}, []

    def lose_both(served: Served) -> None:
        if not lost and len(served.records) >= 4 and served.under_way(0) and served.under_way(1):
            lost.update({number: served.under_way(number) for number in (0, 1)})
            os.kill(fleet.members[0].link.pid, signal.SIGKILL)
            os.kill(fleet.members[1].link.pid, signal.SIGSTOP)

    options = FleetOptions(replicas=2, restarts=2, patience=Patience(answer_s=6.0))
    with Fleet(spec(pause_s=0.02), options) as fleet:
        assert fleet.wait_ready(lambda message, share: told.append((message, share)))
        with caplog.at_level(logging.WARNING, "engine.cluster"):
            served = serve(fleet, wanted, each_step=lose_both)
        assert [member.number for member in fleet.members] == [2, 3]
        fleet.submit(wanted[0])
        with pytest.raises(UserError, match="already there"):
            fleet.submit(wanted[0])
        fleet.drain()
        with pytest.raises(QueueFullError, match="about to stop"):
            fleet.submit(wanted[1])
    check_ends(served, wanted)
    assert served.tokens == expected(wanted)
    for number, moved in lost.items():
        assert moved
        for index in moved:
            assert served.ends[index][0].attempts == 2
            assert served.ends[index][0].replica != number
    assert {row.attempts for rows in served.ends.values() for row in rows} == {1, 2}
    assert "Replica 0 (process" in caplog.text
    assert "died of SIGKILL" in caplog.text
    assert "did not answer for 6 s" in caplog.text
    assert told[-1] == ("2 of 2 replicas ready", 1.0)
    assert all(1 <= tick.row.active <= SLOTS for tick in served.ticks)


def test_a_request_that_ends_replicas_is_given_up_and_all_others_are_served():
    wanted = orders(5, max_new_tokens=8)
    poison = wanted[3].request.prompt_ids[0]
    options = FleetOptions(replicas=1, restarts=2, limits=Limits(losses=1))
    with Fleet(spec(poison=poison), options) as fleet:
        fleet.wait_ready()
        served = serve(fleet, wanted)
        assert [member.number for member in fleet.members] == [2]
    check_ends(served, wanted)
    (given_up,) = served.ends[3]
    assert given_up.reason == "lost"
    assert given_up.attempts == 2
    assert "its process ended with exit code 7" in given_up.message
    right = expected(wanted)
    del right[3]
    assert served.tokens == right


def test_cancel_and_close_in_the_middle_leave_partial_records():
    wanted = orders(8, max_new_tokens=60)
    fleet = Fleet(spec(pause_s=0.05), FleetOptions(replicas=1))
    fleet.wait_ready()
    served = Served()
    for order in wanted:
        fleet.submit(order._replace(arrival_ns=fleet.now()))
    while len(served.under_way(0)) < SLOTS:
        served.take(fleet.step())
    assert fleet.running == SLOTS
    assert fleet.waiting == 8 - SLOTS
    first = min(served.under_way(0))
    assert fleet.cancel(first)
    assert fleet.cancel(7)
    while not {first, 7} <= set(served.ends):
        served.take(fleet.step())
    assert not fleet.cancel(first)
    served.take(fleet.close())
    check_ends(served, wanted)
    assert {rows[0].reason for rows in served.ends.values()} == {"cancelled"}
    assert not fleet.busy
    right = expected(wanted)
    for index, tokens in served.tokens.items():
        assert tokens == right[index][: len(tokens)]


def test_a_replica_that_refuses_its_models_is_named_and_a_crash_while_loading_too():
    with pytest.raises(UserError, match=r"Replica 0 \(process \d+\): There is no model folder"):
        Fleet(spec(refuse=True), FleetOptions(replicas=1)).wait_ready()
    with pytest.raises(DecodeError, match=r"No replica could be started: .*the disk is gone"):
        Fleet(spec(crash=True), FleetOptions(replicas=1)).wait_ready()


def test_stop_while_loading_ends_at_once():
    with Fleet(spec(), FleetOptions(replicas=1)) as fleet:
        assert not fleet.wait_ready(should_stop=lambda: True)


def test_a_fleet_that_fails_while_it_closes_leaves_no_process(monkeypatch):
    fleet = Fleet(spec(), FleetOptions(replicas=1))
    fleet.submit(orders(1)[0])

    def fail(index: int) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fleet, "cancel", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        fleet.close()


def test_no_replicas_are_refused():
    with pytest.raises(UserError, match="0 replicas"):
        FleetOptions(replicas=0)
