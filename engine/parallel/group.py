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
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import distributed

from engine.errors import DecodeError, UserError
from engine.parallel.lanes import Lanes, clock_offset, shifted
from engine.parallel.member import IDLE_SHARE, PATIENCE_S, Member, blame, environment_for
from engine.parallel.place import Place, device_of, join
from engine.parallel.rank import Begin
from engine.serving.trace import LaneRow

logger = logging.getLogger(__name__)

#: a collective that waits longer than this gives up by itself, whatever the watch finds
TIMEOUT_S = 1800.0
#: time to find out which rank it was, once something is wrong
_INQUIRY_S = 3.0
_EXIT_S = 3.0


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
        self._members = [Member(rank, environment_for(threads)) for rank in range(1, num_ranks)]
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
        cause = min(self._members, key=blame)
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
            idle = time.process_time() - spent < IDLE_SHARE * (now - since)
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
