"""Ranks that die, hang or fail in the middle of a step: named in time, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from engine.errors import DecodeError
from engine.parallel.group import close_group
from tests.engine.tiny import requests
from tests.parallel.models import engine_on

pytestmark = pytest.mark.slow

TREE = {"policy": "eagle2", "nodes": 16, "depth": 5, "top_k": 4}
#: a rank must be named within this time, whatever happens to it
NAMED_WITHIN_S = 30.0


@pytest.fixture(autouse=True)
def _no_ranks_left():
    yield
    close_group()
    left = [p for p in psutil.Process().children(recursive=True) if "engine.parallel.rank" in
            " ".join(p.cmdline())]  # fmt: skip
    assert not left


def decode_until_trouble(engine, trouble, *, after: int = 3):
    """Steps until something is raised, `trouble` coming in the middle of one; how long it took."""
    engine.add(requests(1, max_new_tokens=120)[0])
    began = None
    for step in range(10_000):
        if step == after:
            began = time.monotonic()
            threading.Timer(0.005, trouble).start()
        try:
            engine.step()
            if not engine.busy:
                engine.add(requests(1, max_new_tokens=120)[0])
        except DecodeError as error:
            assert began is not None
            return str(error), time.monotonic() - began
    raise AssertionError("nothing was noticed")


def process_of(engine, rank: int):
    return engine.parallel._group._members[rank - 1].process


@pytest.mark.parametrize(
    ("divided", "placement"), [("draft", "beside"), ("target", "beside"), ("draft", "own")]
)
def test_a_killed_rank_is_named_and_the_others_end(divided, placement):
    num_ranks = 3 if divided == "draft" and placement == "beside" else 2
    engine = engine_on(
        num_ranks, "llama", "dynamic-tree", TREE, divided=divided, placement=placement
    )
    victim = num_ranks - 1
    process = process_of(engine, victim)
    pids = [process_of(engine, rank).pid for rank in range(1, num_ranks)]
    message, took = decode_until_trouble(engine, lambda: process.send_signal(signal.SIGKILL))
    assert f"Rank {victim} (process {process.pid}) was killed by SIGKILL" in message
    assert took < NAMED_WITHIN_S
    assert not any(psutil.pid_exists(pid) for pid in pids)
    engine.close()  # must not mind


def test_a_rank_that_hangs_is_named():
    engine = engine_on(2, "llama", "dynamic-tree", TREE)
    process = process_of(engine, 1)
    message, took = decode_until_trouble(engine, lambda: process.send_signal(signal.SIGSTOP))
    assert f"Rank 1 (process {process.pid}) gave no sign of life" in message
    assert took < NAMED_WITHIN_S
    assert not psutil.pid_exists(process.pid)


def test_a_rank_that_fails_is_named_with_its_last_words():
    engine = engine_on(2, "llama", "dynamic-tree", TREE)
    group, key = engine.parallel._group, engine.parallel._key
    message, took = decode_until_trouble(
        engine, lambda: group.call((1,), key, "draft", 0, "release", "no such slot", [])
    )
    assert message.startswith("Rank 1 failed: ")
    assert "Error" in message
    assert took < NAMED_WITHIN_S
    again = engine_on(2, "llama", "dynamic-tree", TREE)  # new ranks, as if nothing had been
    again.add(requests(1)[0])
    while again.busy:
        again.step()
    again.close()


_PARENT = """
import os, sys
from tests.parallel.models import engine_on
engine = engine_on(2, "llama", "dynamic-tree", {"depth": 3})
print(engine.parallel._group._members[0].process.pid, flush=True)
sys.stdin.read()
"""


def test_ranks_end_when_rank_0_is_killed():
    root = str(Path(__file__).resolve().parent.parent.parent)
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + NAMED_WITHIN_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the rank outlives rank 0"
        time.sleep(0.1)
