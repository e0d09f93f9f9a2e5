"""Replicas as processes of this machine: `python -m engine.cluster.local FD` is one of them.

A program of its own rather than a multiprocessing child, which would import the parent's
`__main__`: under Streamlit and pytest that is not ours to import.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter_ns

from engine.cluster.mail import LostError, Mail, ReplicaSpec, Report

_ROOT = str(Path(__file__).resolve().parents[2])
#: time in which a process that closed its pipe is expected to be gone
_GONE_S = 2.0
#: time that a replica gives its present step once it is told to end
_LAST_STEP_S = 5.0


class LocalLink:
    """A replica in a child process. A thread of its own waits for the pipe."""

    def __init__(self, spec: ReplicaSpec) -> None:
        ours, theirs = Pipe()
        threads = str(spec.threads)
        paths = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.cluster.local", str(theirs.fileno())],
                env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": threads},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints goes where its warnings go
            )
        self._outgoing: queue.SimpleQueue[Mail | ReplicaSpec | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._carry, args=(ours,), name=f"replica {self.pid}", daemon=True
        )
        self._thread.start()
        self._outgoing.put(spec)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def where(self) -> str:
        return f"process {self.pid}"

    def post(self, mail: Mail) -> None:
        self._outgoing.put(mail)

    def collect(self) -> Report | None:
        try:
            report = self._answers.get_nowait()
        except queue.Empty:
            return None
        if report is None:
            raise LostError(self._why())
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._outgoing.put(None)
        self._thread.join()

    def hang_up(self) -> None:
        self._outgoing.put(None)

    def close(self, timeout_s: float) -> None:
        self.hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()

    def _carry(self, connection: Connection) -> None:
        """Every message out, then its answer in. Ends with the queue, or with the process."""
        with connection:
            try:
                while (message := self._outgoing.get()) is not None:
                    sent = perf_counter_ns()
                    connection.send(message)
                    if isinstance(message, Mail):
                        report: Report = connection.recv()
                        now = perf_counter_ns()
                        self._answers.put(report._replace(sent_ns=sent, received_ns=now))
            except (EOFError, OSError):
                self._answers.put(None)

    def _why(self) -> str:
        try:
            code = self._process.wait(_GONE_S)
        except subprocess.TimeoutExpired:
            return "its process hung up"
        if code >= 0:
            return f"its process ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its process died of {name}"


def _serve(connection: Connection) -> None:
    """Answer mails until the fleet hangs up."""
    from engine.cluster.replica import Replica

    with contextlib.suppress(EOFError, OSError):
        replica = Replica(connection.recv())
        while True:
            try:
                mail = connection.recv()
            except (EOFError, OSError):
                replica.stop(_LAST_STEP_S)
                raise
            connection.send(replica.exchange(mail))


def main() -> None:
    """The replica's side of the pipe; argument: its file descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the fleet, which hangs up
    _serve(Connection(int(sys.argv[1])))
    sys.stderr.flush()
    os._exit(0)  # a step that hangs must not hold the process


if __name__ == "__main__":
    main()
