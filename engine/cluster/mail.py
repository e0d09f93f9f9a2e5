"""What fleet and replica say to each other: a mail goes out, one report comes back.

One exchange is under way per replica at a time, so an answer also says that all of its mail came.
Times in a mail and in a report are on the replica's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from engine.serving.scheduler import Changes
from engine.serving.trace import Order

LOADING = "loading"
READY = "ready"
FAILED = "failed"


class ReplicaSpec(NamedTuple):
    """How a replica comes about, wherever it runs."""

    #: `module:function`, called there as `function(arguments, on_progress)`; returns a `Served`
    build: str
    arguments: Any = None  # picklable
    threads: int = 1  # of torch
    keep_steps: bool = True  # whether step records travel too: trees are most of what is sent


class Mail(NamedTuple):
    """What a replica is to do."""

    orders: tuple[Order, ...] = ()
    cancels: tuple[int, ...] = ()


class Report(NamedTuple):
    """What happened at a replica since its last report, and how it stands."""

    phase: str  # LOADING, READY or FAILED
    message: str = ""  # what it is doing while loading, or a sentence where it failed
    fraction: float | None = None  # of loading
    wrong_input: bool = False  # it failed over what it was given: another start would fail too
    now_ns: int = 0
    slots: int = 0  # requests that it decodes together, of all its pairs
    facts: Mapping[str, Any] = {}
    at_work_ns: int = 0  # time since its present step began, 0 while it waits
    changes: Changes = Changes([], [], [], [])
    #: when the mail was sent and the report came, on this machine's `perf_counter_ns`; the link's
    sent_ns: int = 0
    received_ns: int = 0


class LostError(RuntimeError):
    """A replica is gone. The message says why, as the end of a sentence."""


class Link(Protocol):
    """A replica as the fleet talks to it: one mail out, then one report in. Nothing blocks."""

    @property
    def where(self) -> str:
        """Its process or node, for people."""

    def post(self, mail: Mail) -> None:
        """Send a mail. The report to the last one must have been collected."""

    def collect(self) -> Report | None:
        """The report, None while there is none. Raises LostError where the replica is gone."""

    def kill(self) -> None:
        """End it at once. Harmless where it is gone."""

    def hang_up(self) -> None:
        """Tell it to end after its present step."""

    def close(self, timeout_s: float) -> None:
        """Hang up, and kill it where it has not ended after so long."""
