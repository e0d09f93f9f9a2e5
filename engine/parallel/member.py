"""Another rank as rank 0 sees it: its process, its pipe, its signs of life, and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from engine.parallel.rank import BEAT_S

#: a rank that is waited for and gives no sign of life for so long is taken for hung
PATIENCE_S = 12.0
#: who uses less of a processor than this does nothing but wait
IDLE_SHARE = 0.03


class Member:
    """One other rank: its process, its pipe, what it said last."""

    def __init__(self, rank: int, environment: dict[str, str]) -> None:
        self.rank = rank
        ours, theirs = Pipe()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the member)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine.parallel.rank", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
        )
        theirs.close()
        self.connection = ours
        self.beat_at = time.monotonic()
        self.active_at = time.monotonic()  # when it was last seen to work
        self._work: tuple[int, float] = (0, 0.0)  # commands begun, processor seconds
        self.failure = ""  # what it said of itself
        self.gone_at: float | None = None
        self.hung = ""  # how that showed
        self.ended_by_us = False
        self.replies: list[tuple[str, Any]] = []

    @property
    def num_begun(self) -> int:
        """Commands that it has begun."""
        return self._work[0]

    def take_beat(self, num_begun: int, seconds: float) -> None:
        """A sign of life: commands begun so far, and processor time spent."""
        if num_begun != self._work[0] or seconds > self._work[1] + IDLE_SHARE * BEAT_S:
            self.active_at = time.monotonic()
        self._work = num_begun, seconds

    def last_words(self) -> str:
        """The last lines it wrote to its log."""
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return " ".join(line.strip() for line in lines[-2:])[-300:]

    def sentence(self) -> str:
        """How it ended."""
        code = self.process.poll()
        if self.hung:
            how = f"{self.hung} and was ended"
        elif code is not None and code < 0:
            with suppress(ValueError):
                code = signal.Signals(-code).name  # type: ignore[assignment]
            how = f"was killed by {code}"
        elif self.failure:
            return f"Rank {self.rank} failed: {self.failure}"
        else:
            how = f"ended with exit code {code}"
        words = self.last_words()
        return f"Rank {self.rank} (process {self.process.pid}) {how}." + (
            f" Its last words: {words}" if words else ""
        )

    def kill(self) -> None:
        """End it, whatever it does."""
        self.ended_by_us = True
        with suppress(ProcessLookupError):
            self.process.kill()


def blame(member: Member) -> tuple[int, float]:
    """Which rank's end explains that of the others: a hung or killed one, then who went first."""
    killed = (member.process.poll() or 0) < 0 and not member.ended_by_us
    order = 0 if member.hung else 1 if killed else 2
    return order, member.gone_at if member.gone_at is not None else float("inf")


def environment_for(threads: int) -> dict[str, str]:
    """Environment of a rank: where this code is, and its threads before torch loads."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }
