"""The scheduler over decoders of known outputs: what it does with orders, slots and failures."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from engine.errors import UserError
from engine.serving.errors import QueueFullError
from engine.serving.scheduler import Changes, Scheduler
from tests.engine.serving.mocks import SECOND, Clock, MockDecoder, order


def make(num_slots: int = 2, **settings):
    clock = Clock()
    decoder = MockDecoder(
        num_slots,
        clock=clock,
        **{k: settings.pop(k) for k in ("accepts", "step_seconds") if k in settings},
    )
    return Scheduler({"": decoder}, clock=clock, **settings), decoder, clock


def finish(scheduler: Scheduler) -> Changes:
    """Step until nothing is left, checking all the way; everything that was told."""
    told = Changes([], [], [], [])
    for _ in range(10_000):
        if not scheduler.busy:
            return told
        for into, new in zip(told, scheduler.step(), strict=True):
            into.extend(new)
        scheduler.check_integrity()
    raise AssertionError("it never ended")


def last_rows(told: Changes) -> dict:
    return {row.request: row for row in told.arrivals}


def test_requests_join_and_leave_between_steps():
    scheduler, decoder, _ = make(2, step_seconds=1.0)
    for index, tokens in enumerate((4, 8, 4)):
        scheduler.submit(order(index, tokens=tokens))
    first = scheduler.step()
    assert [row.active for row, _ in first.ticks] == [2]
    assert first.ticks[0].row.waiting == 1
    rows = last_rows(finish(scheduler))
    assert decoder.order == [0, 1, 2]
    assert decoder.emitted[1] == list(range(100, 108))
    assert [rows[index].ended_ns for index in range(3)] == [2 * SECOND, 4 * SECOND, 4 * SECOND]
    assert [rows[index].slot for index in range(3)] == [0, 1, 0]
    assert rows[2].admitted_ns == rows[2].prefilled_ns == 2 * SECOND
    assert rows[2].first_token_ns == 3 * SECOND
    assert [rows[index].num_kept for index in range(3)] == [4, 8, 4]
    assert {row.reason for row in rows.values()} == {"length"}


def test_prompts_are_read_together_and_share_the_time():
    scheduler, decoder, _ = make(3)
    decoder.token_seconds = 0.5
    for index, prompt in enumerate((2, 6, 1, 4)):
        scheduler.submit(order(index, prompt=prompt))
    rows = last_rows(scheduler.step())
    assert decoder.added == [[0, 1, 2]]
    spans = [(rows[i].admitted_ns / SECOND, rows[i].prefilled_ns / SECOND) for i in range(3)]
    assert spans == [(0, 1), (1, 4), (4, 4.5)]
    assert [rows[index].slot for index in range(3)] == [0, 1, 2]
    finish(scheduler)
    assert decoder.added == [[0, 1, 2], [3]]


def test_many_long_prompts_do_not_hold_up_those_under_way():
    """Of prompts that come beside others, a tick reads one, or as many as fit a pass."""
    scheduler, decoder, _ = make(8)
    decoder._context = 10_000
    for index in range(2):
        scheduler.submit(order(index, prompt=2000, tokens=30))
    scheduler.step()
    assert decoder.added == [[0, 1]], "nobody waited"
    for index, prompt in enumerate((2000, 300, 200, 100), start=2):
        scheduler.submit(order(index, prompt=prompt, tokens=30))
    for _ in range(4):
        scheduler.step()
        scheduler.check_integrity()
    assert decoder.added[1:] == [[2], [3, 4], [5]]


def test_a_prompt_that_cannot_be_read_is_lost_alone():
    scheduler, decoder, _ = make(3)
    decoder.unreadable = {1}
    for index in range(5):
        scheduler.submit(order(index))
    rows = last_rows(finish(scheduler))
    assert [rows[i].reason for i in range(5)] == ["length", "lost", "length", "length", "length"]
    assert rows[1].message == "no room for the prefix."
    assert rows[1].slot is None
    assert decoder.order == [0, 2, 3, 4]


def test_rows_of_a_step_add_up():
    scheduler, _, _ = make(3, accepts=2, budgets="fixed:1")
    scheduler.submit(order(5, tokens=9))
    scheduler.submit(order(6, tokens=9))
    row, shares = scheduler.step().ticks[0]
    assert (row.tick, row.active, row.nodes, row.budget) == (0, 2, 2, 2)
    stages = row.draft_ns + row.score_ns + row.verify_ns + row.commit_ns
    assert stages == 100
    assert stages + row.rest_ns == row.end_ns - row.begin_ns == SECOND // 10
    assert [(s.request, s.slot, s.nodes, s.depth) for s in shares] == [(5, 0, 1, 1), (6, 1, 1, 1)]
    assert [s.bid for s in shares] == [0.5, 0.5]
    assert [s.accepted for s in shares] == [1, 1]
    assert [s.kept for s in shares] == [2, 2]


def test_what_can_never_run_is_refused_with_a_reason():
    scheduler, decoder, _ = make()
    with pytest.raises(UserError, match="too long"):
        scheduler.submit(order(0, prompt=100))
    row = last_rows(finish(scheduler))[0]
    assert (row.reason, row.message) == ("refused", "The prompt is too long.")
    assert decoder.order == []


def test_a_request_that_is_there_is_not_taken_twice():
    scheduler, _, _ = make()
    scheduler.submit(order(0))
    with pytest.raises(UserError, match="already there"):
        scheduler.submit(order(0))
    scheduler.check_integrity()
    told = finish(scheduler)
    assert [row.reason for row in told.arrivals if row.reason] == ["refused", "length"]
    scheduler.submit(order(0))  # a number is free again when its request has ended
    assert last_rows(finish(scheduler))[0].reason == "length"


def test_a_full_queue_pushes_back():
    scheduler, _, _ = make(1, max_waiting=2)
    scheduler.submit(order(0))
    scheduler.step()
    for index in (1, 2):
        scheduler.submit(order(index))
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        scheduler.submit(order(3))
    rows = last_rows(finish(scheduler))
    assert rows[3].reason == "refused"
    assert [rows[index].reason for index in range(3)] == ["length"] * 3


def test_cancel_waiting_and_running():
    scheduler, decoder, _ = make(1)
    scheduler.submit(order(0, tokens=50))
    scheduler.submit(order(1))
    scheduler.submit(order(2))
    scheduler.step()
    assert scheduler.cancel(0)
    assert scheduler.cancel(1)
    assert not scheduler.cancel(1)
    assert not scheduler.cancel(9)
    scheduler.check_integrity()
    assert decoder.num_free
    told = finish(scheduler)
    rows = last_rows(told)
    assert [rows[index].reason for index in range(3)] == ["cancelled", "cancelled", "length"]
    assert rows[0].num_kept == 2
    assert [record.request for record in told.finished] == [0, 2]
    assert decoder.order == [0, 2]


def test_timeouts_end_requests_where_they_are():
    scheduler, decoder, _ = make(1, step_seconds=1.0)
    scheduler.submit(order(0, tokens=50, timeout=2.5))
    scheduler.submit(order(1, tokens=4, timeout=1.5))
    scheduler.submit(order(2, tokens=4, timeout=100.0))
    rows = last_rows(finish(scheduler))
    assert [rows[index].reason for index in range(3)] == ["timed-out", "timed-out", "length"]
    assert rows[0].ended_ns == 3 * SECOND
    assert rows[0].num_kept == 6
    assert rows[1].ended_ns == 2 * SECOND
    assert rows[1].slot is None
    assert decoder.order == [0, 2]


def test_pairs_share_a_scheduler_and_a_full_one_holds_up_no_other():
    clock = Clock()
    pairs = {name: MockDecoder(1, clock=clock) for name in ("small", "large")}
    scheduler = Scheduler(pairs, clock=clock)
    for index, pair in enumerate(("small", "small", "large", "large")):
        scheduler.submit(order(index, tokens=6, pair=pair))
    steps = [scheduler.step() for _ in range(2)]
    assert [[row.pair for row, _ in one.ticks] for one in steps] == [
        ["small", "large"], ["large", "small"],
    ]  # fmt: skip
    finish(scheduler)
    assert pairs["small"].order == [0, 1]
    assert pairs["large"].order == [2, 3]
    with pytest.raises(UserError, match="'other' is not served here; there are: small, large"):
        scheduler.submit(order(9, pair="other"))


def test_a_decoder_that_fails_loses_its_batch_and_nothing_else():
    clock = Clock()
    sick, well = (MockDecoder(2, clock=clock) for _ in range(2))
    scheduler = Scheduler({"sick": sick, "well": well}, clock=clock)
    sick.fails_on = {1}
    for index in range(3):
        scheduler.submit(order(index, pair="sick"))
    scheduler.submit(order(3, pair="well"))
    rows = last_rows(finish(scheduler))
    assert [rows[index].reason for index in range(4)] == ["lost", "lost", "length", "length"]
    assert rows[1].message == "mock gave NaN or infinite logits."
    assert not sick.busy


def test_a_pair_that_cannot_give_back_slots_is_shut():
    clock = Clock()
    sick, well = (MockDecoder(1, clock=clock) for _ in range(2))
    scheduler = Scheduler({"sick": sick, "well": well}, clock=clock)
    sick.fails_on, sick.stuck = {0}, True
    for index in range(2):
        scheduler.submit(order(index, pair="sick"))
    scheduler.submit(order(2, pair="well"))
    rows = last_rows(finish(scheduler))
    assert [rows[index].reason for index in range(3)] == ["lost", "lost", "length"]
    assert "no longer served: mock is stuck." in rows[1].message
    with pytest.raises(UserError, match="no longer served"):
        scheduler.submit(order(5, pair="sick"))


def test_draining_serves_what_is_there_and_takes_no_more():
    scheduler, _, _ = make(1)
    scheduler.submit(order(0))
    scheduler.submit(order(1))
    scheduler.drain()
    with pytest.raises(QueueFullError, match="about to stop"):
        scheduler.submit(order(2))
    rows = last_rows(finish(scheduler))
    assert [rows[index].reason for index in range(3)] == ["length", "length", "refused"]


def test_closing_cancels_what_is_there():
    scheduler, decoder, _ = make(1)
    scheduler.submit(order(0, tokens=40))
    scheduler.submit(order(1))
    scheduler.step()
    rows = last_rows(scheduler.close())
    assert [rows[index].reason for index in range(2)] == ["cancelled"] * 2
    assert not scheduler.busy
    assert not decoder.busy


@pytest.mark.parametrize("policy", ["first-come", "shortest-first", "deadline", "fair"])
@pytest.mark.parametrize("budgets", ["auction", "fixed:1", "proportional:5", "round-robin:3"])
def test_thousands_of_random_moves_keep_slots_and_orders_whole(policy, budgets):
    """Every order ends exactly once, whatever comes, goes, times out or breaks."""
    rng = np.random.default_rng(7)
    clock = Clock()
    decoders = {name: MockDecoder(3, clock=clock, accepts=2) for name in ("a", "b")}
    scheduler = Scheduler(decoders, policy=policy, budgets=budgets, max_waiting=12, clock=clock)
    ends: dict[int, list[str]] = {}
    submitted, finished = 0, []

    def take(told: Changes) -> None:
        for row in told.arrivals:
            if row.reason:
                assert row.ended_ns is not None
                ends.setdefault(row.request, []).append(row.reason)
        finished.extend(record.request for record in told.finished)
        for row, shares in told.ticks:
            slots = [share.slot for share in shares]
            assert len(set(slots)) == len(slots) == row.active
            assert all(0 <= slot < 3 for slot in slots)

    for _ in range(1500):
        move = rng.random()
        if move < 0.5:
            wanted = order(
                submitted, tokens=int(rng.integers(1, 30)), prompt=int(rng.integers(1, 104)),
                at=clock.ns / SECOND, pair=str(rng.choice(["a", "b"])),
                client=str(rng.integers(4)),
            )  # fmt: skip
            if rng.random() < 0.3:
                wanted = wanted._replace(timeout_ns=clock.ns + int(rng.integers(2 * SECOND)))
            if rng.random() < 0.3:
                wanted = wanted._replace(deadline_ns=clock.ns + int(rng.integers(2 * SECOND)))
            submitted += 1
            with suppress(UserError, QueueFullError):
                scheduler.submit(wanted)
        elif move < 0.6:
            scheduler.cancel(int(rng.integers(max(submitted - 20, 0), submitted + 1)))
        elif move < 0.62:
            decoders["a"].fails_on = {submitted - 6, submitted + 1}
        else:
            take(scheduler.step())
        scheduler.check_integrity()
    take(finish(scheduler))
    assert sorted(ends) == list(range(submitted))
    assert all(len(reasons) == 1 for reasons in ends.values())
    kinds = {reasons[0] for reasons in ends.values()}
    assert kinds == {"length", "cancelled", "timed-out", "refused", "lost"}
    assert len(finished) == len(set(finished))
    assert not any(decoder.busy for decoder in decoders.values())
