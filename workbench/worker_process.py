"""The worker's side of the pipe: `python -m workbench.worker_process FD JOB`.

Runs jobs one after another in the main thread, keeps their models loaded, listens for `stop` in
another. It ends when the pipe does: nobody is left to decode for.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import UserError
from workbench.events import Event
from workbench.jobs import KINDS

logger = logging.getLogger(__name__)

#: events of this long travel in one message
BURST_S = 0.05
#: time a job gets to end by itself once the parent is gone
_GRACE_S = 10.0


class Outbox:
    """Collects events and sends them in bursts, on a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: deque[Event] = deque()
        self._sending = threading.Lock()
        self.gone = False
        threading.Thread(target=self._work, name="outbox", daemon=True).start()

    def emit(self, event: Event) -> None:
        """Queue an event."""
        self._events.append(event)

    def send(self, *message: Any) -> None:
        """Send what is queued, then `message` (if any), at once and in order."""
        with self._sending:
            events = [self._events.popleft() for _ in range(len(self._events))]
            try:
                if events:
                    self._connection.send(("events", events))
                if message:
                    self._connection.send(message)
            except OSError:  # the parent is gone; the listener ends the process
                self.gone = True

    def _work(self) -> None:
        pause = threading.Event()
        while not pause.wait(BURST_S) and not self.gone:
            self.send()


class Inbox:
    """Listens to the parent: jobs go into a queue, `stop` takes effect at once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.jobs: queue.Queue[tuple[int, str, str, str | None] | None] = queue.Queue()
        self._stopped_up_to = 0  # jobs are numbered from 1
        self._ending = False
        threading.Thread(target=self._work, name="inbox", daemon=True).start()

    def should_stop(self, job: int) -> bool:
        """Whether job number `job` is to end."""
        return self._ending or job <= self._stopped_up_to

    def _work(self) -> None:
        while not self._ending:
            try:
                command, *values = self._connection.recv()
            except (EOFError, OSError):
                command, values = "exit", []
            if command == "start":
                self.jobs.put((values[0], values[1], values[2], values[3]))
            elif command == "stop":
                self._stopped_up_to = max(self._stopped_up_to, values[0])
            else:
                self._ending = True
                self.jobs.put(None)
        end = threading.Timer(_GRACE_S, os._exit, args=(1,))
        end.daemon = True
        end.start()


def serve(connection: Connection, job: Callable[..., Any]) -> None:
    """Run jobs until the parent says exit or is gone."""
    outbox, inbox = Outbox(connection), Inbox(connection)
    while (todo := inbox.jobs.get()) is not None:
        number, kind, spec_json, folder = todo
        try:
            job(
                KINDS[kind].model_validate_json(spec_json),
                outbox.emit,
                lambda number=number: inbox.should_stop(number),
                runs=Path(folder) if folder else None,
            )
        except UserError as error:
            outbox.send("error", number, True, str(error))
        except Exception as error:
            logger.exception("the job broke off")
            outbox.send("error", number, False, f"Internal error: {type(error).__name__}: {error}")
        outbox.send("idle", number)


def main() -> None:
    """Entry of the process."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    module, _, name = sys.argv[2].partition(":")
    job = getattr(import_module(module), name)  # torch loads here, under the environment given
    serve(Connection(int(sys.argv[1])), job)


if __name__ == "__main__":
    main()
