"""Rank 0's hold on the other ranks: starts them, gives commands, knows when one is gone.

A rank is a process of its own with a pipe for commands; among each other ranks use
torch.distributed (gloo; NCCL as well where there are GPUs). Rank 0 watches whether each process
lives, and whether it gives signs of life. A rank that is gone or mute takes the others with it, on
purpose: that frees whoever waits for it in a collective, and the run ends with a sentence that
names it.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from engine.errors import DecodeError, UserError
from engine.parallel.lanes import Lanes, clock_offset, shifted
from engine.parallel.place import Place, device_of
from engine.parallel.rank import BEAT_S, Begin
from engine.serving.trace import LaneRow

logger = logging.getLogger(__name__)

#: a rank that is waited for and gives no sign of life for so long is taken for hung
PATIENCE_S = 12.0
#: a collective that waits longer than this gives up by itself, whatever the watch finds
TIMEOUT_S = 1800.0
#: time to find out which rank it was, once something is wrong
_INQUIRY_S = 3.0
_EXIT_S = 3.0
#: who uses less of a processor than this does nothing but wait
_IDLE_SHARE = 0.03


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
        if num_begun != self._work[0] or seconds > self._work[1] + _IDLE_SHARE * BEAT_S:
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


class Group:
    """All ranks of this process, itself being rank 0. One at a time; see `group_of`."""

    def __init__(self, num_ranks: int, *, device: str, threads: int) -> None:
        if distributed.is_initialized():
            raise UserError(
                "torch.distributed is under way in this process already, as torchrun leaves it; "
                "Draftree starts its ranks itself, so start it plainly with --ranks."
            )
        self.num_ranks, self.device, self.threads = num_ranks, device, threads
        self.broken = False
        #: engines that use these ranks
        self.users: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._held: set[int] = set()  # keys under which ranks keep something
        self._changed = threading.Condition()
        #: since when rank 0 waits, and the processor time that it had spent by then
        self._waiting: tuple[float | None, float] = (None, 0.0)
        self._closing = False
        self._key = 0
        self._members = [Member(rank, _environment(threads)) for rank in range(1, num_ranks)]
        for member in self._members:
            for work in (self._listen, self._watch):
                threading.Thread(target=work, args=(member,), daemon=True).start()
        threading.Thread(target=self._be_patient, name="patience", daemon=True).start()
        self.place = self._meet()
        self._offsets = [0, *(self._offset(rank) for rank in range(1, num_ranks))]

    def _meet(self) -> Place:
        store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        begins = [
            Begin(rank, self.num_ranks, store.port, device_of(rank, self.device), self.threads,
                  TIMEOUT_S)
            for rank in range(self.num_ranks)
        ]  # fmt: skip
        for member in self._members:
            member.connection.send(("begin", begins[member.rank]))
        for member in self._members:
            self.receive(member.rank)
        with self.guarded():
            join(begins[0], store)
        cuda = self.device.startswith("cuda")
        lanes = Lanes(0, synchronize=torch.cuda.synchronize if cuda else lambda: None)
        return Place(0, self.num_ranks, begins[0].device, lanes)

    def _offset(self, rank: int) -> int:
        return clock_offset(lambda: self.ask(rank, "clock"))[0]

    # -- commands ------------------------------------------------------------------------------

    def new_key(self) -> int:
        """A number under which ranks keep the parts of one engine."""
        for gone in self._held - set(self.users):
            self.drop(gone)
        self._key += 1
        self._held.add(self._key)
        return self._key

    def drop(self, key: int) -> None:
        """Have ranks forget their parts of one engine."""
        self.users.pop(key, None)
        if key in self._held:
            self._held.discard(key)
            for member in self._members:
                self.tell(member.rank, "drop", key)

    def tell(self, rank: int, *command: Any) -> None:
        """Give a command. Raises DecodeError where the rank is gone."""
        try:
            self._members[rank - 1].connection.send(command)
        except OSError:
            raise self.explained() from None

    def call(self, ranks: Sequence[int], key: int, name: str, *arguments: Any) -> None:
        """Have a part of other ranks do something, without waiting for it."""
        for rank in ranks:
            if rank:
                self.tell(rank, "call", key, name, arguments, False)

    def ask(self, rank: int, *command: Any) -> Any:
        """Give a command and wait for what it brings."""
        self.tell(rank, *command)
        return self.receive(rank)

    def receive(self, rank: int, *, patient: bool = True) -> Any:
        """The next answer of a rank. Raises UserError where it refuses, DecodeError where it dies.

        `patient` waits without end for a rank that lives, as for one that loads a model.
        """
        member = self._members[rank - 1]
        with self.waiting(not patient), self._changed:
            self._changed.wait_for(lambda: member.replies or self.broken)
            if not member.replies:
                failed = True
            else:
                failed, (kind, value) = False, member.replies.pop(0)
        if failed:
            raise self.explained()
        if kind == "refused":
            raise UserError(value)
        return value

    def take_lanes(self) -> list[LaneRow]:
        """What all ranks noted since this was last asked, on rank 0's clock, in order of time."""
        rows = self.place.lanes.take()
        for member in self._members:
            self.tell(member.rank, "lanes")
        for member in self._members:
            rows += shifted(self.receive(member.rank), -self._offsets[member.rank])
        return sorted(rows, key=lambda row: row.begin_ns)

    # -- trouble -------------------------------------------------------------------------------

    @contextmanager
    def waiting(self, impatient: bool = True) -> Iterator[None]:
        """While rank 0 waits for others here, a mute rank is not put up with."""
        self._waiting = (time.monotonic() if impatient else None), time.process_time()
        try:
            yield
        finally:
            self._waiting = None, 0.0

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What runs inside may wait for other ranks; where that fails the rank is named."""
        try:
            with self.waiting():
                yield
        except DecodeError:
            raise
        except RuntimeError as error:
            logger.debug("a collective failed", exc_info=True)
            with self._changed:
                self._changed.wait_for(lambda: self.broken, _INQUIRY_S)
            if not self.broken:
                raise
            raise self.explained() from error

    def explained(self) -> DecodeError:
        """Why the run cannot go on. Ends all ranks."""
        with self._changed:  # another rank's complaint may have come before the cause was seen
            self._changed.wait_for(lambda: any(m.process.poll() for m in self._members), 1.0)
        cause = min(self._members, key=_blame)
        self.close()
        return DecodeError(f"{cause.sentence()} The run ended with it.")

    def _listen(self, member: Member) -> None:
        while True:
            try:
                kind, value = member.connection.recv()
            except (EOFError, OSError):
                return
            member.beat_at = time.monotonic()
            if kind == "beat":
                member.take_beat(*value)
                continue
            with self._changed:
                if kind == "failed":
                    member.failure = value
                else:
                    member.replies.append((kind, value))
                self._changed.notify_all()

    def _watch(self, member: Member) -> None:
        member.process.wait()
        with self._changed:
            member.gone_at = time.monotonic()
            if self._closing or self.broken:
                return
            self.broken = True
            self._changed.notify_all()
        self._end_others(member)

    def _end_others(self, cause: Member) -> None:
        """Ranks that wait for one that is gone are freed, and rank 0 with them."""
        for member in self._members:
            if member is not cause:
                member.kill()
        if self.device.startswith("cuda"):  # kernels of a collective wait on the device
            with suppress(RuntimeError):
                distributed.distributed_c10d._abort_process_group()  # type: ignore[attr-defined]

    def _be_patient(self) -> None:
        while not (self._closing or self.broken):
            time.sleep(0.5)
            (since, spent), now = self._waiting, time.monotonic()
            if since is None or now - since < PATIENCE_S:
                continue
            mute = min(self._members, key=lambda member: member.beat_at)
            idle = time.process_time() - spent < _IDLE_SHARE * (now - since)
            if now - mute.beat_at > PATIENCE_S:
                mute.hung = f"gave no sign of life for {PATIENCE_S:.0f} s"
            elif idle and all(now - member.active_at > PATIENCE_S for member in self._members):
                mute = min(self._members, key=lambda member: member.num_begun)
                mute.hung = f"did nothing for {PATIENCE_S:.0f} s while rank 0 waited"
            if mute.hung:
                mute.kill()  # `_watch` does the rest

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """End all ranks. What they kept is gone."""
        if self._closing:
            return
        self._closing = True
        for member in self._members:
            with suppress(OSError):
                member.connection.send(("stop",))
        deadline = time.monotonic() + (0.0 if self.broken else _EXIT_S)
        for member in self._members:
            with suppress(subprocess.TimeoutExpired):
                member.process.wait(max(0.0, deadline - time.monotonic()))
            member.kill()
            member.process.wait()
        self.broken = True
        with suppress(RuntimeError):
            distributed.destroy_process_group()
        with self._changed:
            self._changed.notify_all()


def _blame(member: Member) -> tuple[int, float]:
    """Which rank's end explains that of the others: a hung or killed one, then who went first."""
    killed = (member.process.poll() or 0) < 0 and not member.ended_by_us
    order = 0 if member.hung else 1 if killed else 2
    return order, member.gone_at if member.gone_at is not None else float("inf")


def _environment(threads: int) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }


def join(begin: Begin, store: distributed.Store | None = None) -> None:
    """Meet the other ranks: gloo for all, NCCL beside it where there are GPUs."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if store is None:
        store = distributed.TCPStore("127.0.0.1", begin.port, is_master=False)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if begin.device.startswith("cuda") else "gloo",
        store=store,
        rank=begin.rank,
        world_size=begin.num_ranks,
        timeout=timedelta(seconds=begin.timeout_s),
    )


_kept: Group | None = None


def group_of(num_ranks: int, *, device: str, threads: int) -> Group:
    """This process's ranks, started where they are not there; kept for later engines.

    An engine on fewer ranks uses the first ones. Raises UserError where other engines hold a
    smaller group.
    """
    global _kept
    fits = (
        _kept is not None
        and not _kept.broken
        and _kept.device == device
        and _kept.num_ranks >= num_ranks
    )
    if not fits:
        if _kept is not None and not _kept.broken and _kept.users:
            raise UserError(
                f"{_kept.num_ranks} ranks are under way in this process, and {num_ranks} are "
                "wanted beside them; begin with the largest number."
            )
        close_group()
        _kept = Group(num_ranks, device=device, threads=threads)
    assert _kept is not None
    return _kept


def close_group() -> None:
    """End the ranks of this process, where there are any."""
    global _kept
    group, _kept = _kept, None
    if group is not None:
        group.close()


atexit.register(close_group)
