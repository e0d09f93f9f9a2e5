"""Stage times by events: fake ones with a device's clock that runs behind the host."""

from __future__ import annotations

import time

import pytest
import torch

from engine.clock import EventClock, WallClock, clock_for, shared_out
from engine.decode import Engine
from tests.engine.tiny import decode_all, engine_for, near, requests, tiny

STAGES = ("draft", "score", "verify", "commit", "record")


def test_time_spent_on_several_is_shared_out_by_size():
    assert shared_out(100, 200, [1, 3]) == [(100, 125), (125, 200)]
    assert shared_out(100, 200, [5]) == [(100, 200)]
    spans = shared_out(7, 1_000_000_007, [3, 3, 1, 300])
    assert spans[0][0] == 7
    assert spans[-1][1] == 1_000_000_007
    assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]


class Device:
    """A clock in milliseconds that moves by what is queued, and counts who waits for it."""

    def __init__(self):
        self.now = 0.0
        self.waits = 0
        self.made = 0

    def event(self):
        self.made += 1
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, device):
        self._device = device
        self.at = None

    def record(self):
        self.at = self._device.now

    def synchronize(self):
        self._device.waits += 1

    def elapsed_time(self, later):
        assert self.at is not None
        return later.at - self.at


def test_stages_are_what_passes_on_the_device_between_events():
    device = Device()
    clock = EventClock(device.event)
    for scale in (1.0, 2.0):
        clock.start()
        for number, stage in enumerate(STAGES):
            device.now += scale * (number + 1) / 100
            clock.lap(stage)
        times = clock.times()
        assert times[:2] == (round(scale * 1e4), 0)
        assert [getattr(times, stage) for stage in STAGES] == [
            round(scale * 1e4 * (number + 1)) for number in range(5)
        ]
        device.now += 1.0  # between steps nothing is timed
    assert device.made == 6, "events are made once"
    assert device.waits == 2, "one wait per step"


def test_wall_time_is_the_hosts_and_the_rest_is_unaccounted():
    device = Device()
    clock = EventClock(device.event)
    clock.start()
    clock.lap("draft")
    time.sleep(0.005)
    device.now += 1.0
    clock.lap("score")
    times = clock.times()
    assert times.score == 1_000_000
    assert times.unaccounted >= 3_500_000
    assert times.wall >= 5_000_000


def test_a_device_clock_ahead_of_the_host_leaves_nothing_negative():
    device = Device()
    clock = EventClock(device.event)
    clock.start()
    device.now += 1000.0
    clock.lap("draft")
    assert clock.times().unaccounted == 0


def test_on_a_cpu_the_wall_clock_serves_and_never_waits():
    assert isinstance(clock_for("cpu"), WallClock)
    clock = WallClock()
    clock.start()
    time.sleep(0.002)
    clock.lap("draft")
    clock.lap("score")
    times = clock.times()
    assert times.draft >= 2_000_000 > times.score >= 0
    assert times.unaccounted >= 0


def test_an_engine_waits_once_per_step():
    target = tiny()
    engine: Engine = engine_for("static-tree", {}, target, near(target), batch=2)
    device = Device()
    engine._clock = EventClock(device.event)
    _, steps = decode_all(engine, requests(3))
    assert device.waits == len({step.batch_step for step in steps})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_real_events_time_work_of_the_stage_it_was_queued_in():
    clock = clock_for("cuda")
    large = torch.randn(4096, 4096, device="cuda")
    large @ large
    torch.cuda.synchronize()
    clock.start()
    clock.lap("draft")
    for _ in range(20):
        large @ large
    clock.lap("score")
    clock.lap("verify")
    times = clock.times()
    assert times.score > 10 * max(times.draft, times.verify, 1)
    assert times.wall >= times.score
