"""A rank other than 0: `python -m engine.parallel.rank FD`. It does what rank 0 says, in order.

Commands come over a pipe and end with it: a rank does not outlive rank 0, whatever it waits for.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Any, NamedTuple

#: a rank says so often that it is alive
BEAT_S = 1.0


class Begin(NamedTuple):
    """The first command: who this rank is and where the others meet."""

    rank: int
    num_ranks: int
    port: int
    device: str
    threads: int
    timeout_s: float


class Inbox:
    """Commands as they come, read by a thread that ends the process where the pipe ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._commands: queue.Queue[tuple[Any, ...]] = queue.Queue()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self._commands.put(self._connection.recv())
            except (EOFError, OSError):
                os._exit(0)  # the main thread may wait for ranks that are gone too

    def next(self) -> tuple[Any, ...]:
        return self._commands.get()

    @property
    def waiting(self) -> bool:
        """Whether a command has come that is not begun."""
        return not self._commands.empty()


class Outbox:
    """Answers, and a sign of life every second, from two threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.num_begun = 0  # commands, so that a rank that hangs can be told from one that waits
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def send(self, kind: str, value: Any = None) -> None:
        with self._sending:
            self._connection.send((kind, value))

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(BEAT_S):
            try:
                self.send("beat", (self.num_begun, time.process_time()))
            except OSError:
                return


def serve(connection: Connection) -> None:
    """Do as told until told to stop."""
    inbox, outbox = Inbox(connection), Outbox(connection)
    begin: Begin = inbox.next()[1]
    place = _join(begin, outbox)
    place.busy = lambda: inbox.waiting
    parts: dict[int, Any] = {}
    while True:
        kind, *values = inbox.next()
        outbox.num_begun += 1
        if kind == "stop":
            return
        if kind == "clock":
            outbox.send("reply", perf_counter_ns())
        elif kind == "lanes":
            outbox.send("reply", place.lanes.take())
        elif kind == "setup":
            _set_up(parts, values[0], values[1], place, outbox)
        elif kind == "drop":
            parts.pop(values[0], None)
        else:
            key, name, arguments, wanted = values
            found = getattr(parts[key], name)(*arguments)
            if wanted:
                outbox.send("reply", found)
            parts[key].idle()


def _set_up(parts: dict[int, Any], key: int, plan: Any, place: Any, outbox: Outbox) -> None:
    from engine.errors import UserError

    try:
        parts[key] = plan.build(place)
    except UserError as error:
        outbox.send("refused", str(error))
    else:
        outbox.send("reply")


def _join(begin: Begin, outbox: Outbox) -> Any:
    import torch

    from engine.parallel.lanes import Lanes
    from engine.parallel.place import Place, join

    torch.set_num_threads(begin.threads)
    synchronize = lambda: None  # noqa: E731
    if begin.device.startswith("cuda"):
        torch.cuda.set_device(begin.device)
        synchronize = torch.cuda.synchronize
    outbox.send("reply")  # all modules are there: what follows waits for the others
    join(begin)
    lanes = Lanes(begin.rank, synchronize=synchronize)
    return Place(begin.rank, begin.num_ranks, begin.device, lanes)


def main() -> None:
    """Entry of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for rank 0 to handle
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    connection = Connection(int(sys.argv[1]))
    code = 0
    try:
        serve(connection)
    except Exception as error:  # noqa: BLE001  (told to rank 0, whatever it was)
        code = 1
        words = str(error).strip() or type(error).__name__
        connection.send(("failed", f"{type(error).__name__}: {words.splitlines()[0][:300]}"))
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)  # groups whose other ranks are gone can wait for them on the way out


if __name__ == "__main__":
    main()
