"""The live state of a load run: counts, bounded memory, time left, and how it ends."""

from __future__ import annotations

import pytest
from load_rows import ARRIVALS, MS, TICKS, arrival, served, tick

from workbench.events import LoadFinished, LoadStarted, Progress
from workbench.loading.spec import LoadSpec
from workbench.loading.state import KEPT_ENDED, KEPT_TICKS, LoadState


def started(**spec: object) -> LoadState:
    state = LoadState()
    asked = LoadSpec(**spec)
    state.begin(asked)
    total = None if asked.duration_s else asked.requests
    state.fold(LoadStarted("run-1", "eager", total, asked.slots, ("",)))
    return state


def test_from_start_to_end() -> None:
    state = LoadState()
    assert state.snapshot().status == "idle"
    state.begin(LoadSpec(requests=5))
    assert (state.snapshot().status, state.active) == ("starting", True)
    state.fold(Progress("load", "Loading", 0.5))
    assert state.snapshot().progress == Progress("load", "Loading", 0.5)
    state.fold(LoadStarted("run-1", "eager", 5, 8, ("",)))
    for row in ARRIVALS:
        state.fold(row._replace(reason=None, ended_ns=None, admitted_ns=None, first_token_ns=None))
    now = state.snapshot()
    assert (now.status, now.run_id, now.slots, now.progress) == ("running", "run-1", 8, None)
    assert (now.counts.arrived, now.counts.waiting, now.counts.running) == (5, 5, 0)
    assert [row.request for row in now.live] == [0, 1, 2, 3, 4]
    state.fold(ARRIVALS[0]._replace(reason=None, ended_ns=None))
    assert (state.snapshot().counts.waiting, state.snapshot().counts.running) == (4, 1)
    for one in TICKS:
        state.fold(one)
    for row in ARRIVALS:
        state.fold(row)
    now = state.snapshot()
    counts = now.counts
    assert (counts.ended, counts.completed, counts.cancelled, counts.refused) == (5, 3, 1, 1)
    assert (now.live, len(now.ended), now.num_ticks, now.output_tokens) == ([], 5, 4, 12)
    assert (now.now_ns, now.fraction) == (420 * MS, 1.0)
    assert now.output_throughput == pytest.approx(12 / 0.38)
    assert now.latencies["ttft"].count == 3
    state.fold(LoadFinished("run-1", "finished", {"requests": 5}))
    last = state.snapshot()
    assert (last.status, last.metrics, last.active) == ("finished", {"requests": 5}, False)
    assert last.seconds_left is None


def test_memory_does_not_grow_with_the_run() -> None:
    state = started(duration_s=1000)
    for number in range(2000):
        state.fold(arrival(number, number))
        state.fold(tick(number, number, number + 1, {number: 1}))
        state.fold(served(number, number, number, number, number + 1, number + 1, 2))
    now = state.snapshot()
    assert (len(now.ticks), len(now.ended), len(now.live)) == (KEPT_TICKS, KEPT_ENDED, 0)
    assert (now.num_ticks, now.counts.completed, now.output_tokens) == (2000, 2000, 2000)
    assert now.ticks[-1].row.tick == 1999
    assert not state._latencies._last_chunk_ns
    assert now.fraction == pytest.approx(2.0 / 1000, rel=0.01)


def test_a_request_that_was_lost_and_begun_again_counts_once() -> None:
    state = started(requests=2)
    state.fold(arrival(0, 0))
    state.fold(arrival(0, 0, reason="lost", ended_ns=9 * MS, message="Its replica is gone."))
    assert state.snapshot().counts.lost == 1
    state.fold(arrival(0, 0, attempts=2))
    assert state.snapshot().counts.lost == 0
    state.fold(served(0, 0, 20, 21, 22, 23, 4)._replace(attempts=2))
    counts = state.snapshot().counts
    assert (counts.arrived, counts.ended, counts.completed, counts.lost) == (1, 1, 1, 0)
    state.fold(arrival(1, 3, attempts=2))
    assert state.snapshot().counts.arrived == 2


def test_time_left_follows_the_pace() -> None:
    state = started(requests=10)
    for number in range(5):
        state.fold(served(number, 0, 0, 1, 2, 3, 2), now=100.0 + number)
    # from 1 to 5 of 10 in four seconds
    assert state.snapshot(104.0).seconds_left == pytest.approx(5.0)
    assert state.snapshot(106.0).seconds_left == pytest.approx(3.0)


def test_a_worker_that_died() -> None:
    state = started(requests=3)
    version = state.version
    state.fail("interrupted", "The worker died of SIGKILL.")
    now = state.snapshot()
    assert (now.status, now.error, now.active) == (
        "interrupted", "The worker died of SIGKILL.", False,
    )  # fmt: skip
    assert now.version > version
    state.begin(LoadSpec())
    assert (state.snapshot().error, state.snapshot().num_ticks) == ("", 0)


def test_a_snapshot_is_left_alone_by_later_events() -> None:
    state = started(requests=3)
    before = state.snapshot()
    state.fold(TICKS[0])
    assert before.ticks == []
    assert state.snapshot().ticks == [TICKS[0]]
