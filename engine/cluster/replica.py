"""The body of a replica: one scheduler on a thread of its own, driven by mails.

Runs in a process of its own, started by `engine.cluster.local`, or in a Ray actor
(`engine.cluster.ray_actors`). `exchange` answers at once, whatever the engine is doing: a long step
is no silence.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from time import perf_counter_ns
from typing import Any, NamedTuple

from engine.cluster.mail import FAILED, LOADING, READY, Mail, ReplicaSpec, Report
from engine.errors import UserError
from engine.serving.errors import QueueFullError
from engine.serving.scheduler import Changes, Scheduler

logger = logging.getLogger(__name__)

#: told while models load: a sentence and, where known, the share done
Telling = Callable[[str, float | None], None]


class Served(NamedTuple):
    """What the function that builds a replica returns."""

    scheduler: Scheduler
    slots: int  # requests that are decoded together, of all pairs
    facts: Mapping[str, Any] = {}


class Replica:
    """Builds what the spec says, then steps whenever there is something to do."""

    def __init__(self, spec: ReplicaSpec) -> None:
        self._spec = spec
        self._changed = threading.Condition()
        self._mail: list[Mail] = []
        self._told = Changes([], [], [], [])
        self._standing = Report(LOADING, "Starting")
        self._scheduler: Scheduler | None = None
        self._began_ns = 0  # of the present step, 0 between steps
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def exchange(self, mail: Mail) -> Report:
        """Take a mail, and tell what happened since the last one."""
        with self._changed:
            if mail.orders or mail.cancels:
                self._mail.append(mail)
                self._changed.notify_all()
            told, self._told = self._told, Changes([], [], [], [])
            began = self._began_ns
            return self._standing._replace(
                now_ns=self._scheduler.now() if self._scheduler is not None else 0,
                at_work_ns=perf_counter_ns() - began if began else 0,
                changes=told,
            )

    def stop(self, timeout_s: float) -> None:
        """Step no more; waits for the present step, but no longer than this."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    # -- the engine's thread --------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._serve(self._build())
        except UserError as error:
            self._stand(Report(FAILED, str(error), wrong_input=True))
        except BaseException as error:
            said = str(error).strip() or type(error).__name__
            self._stand(Report(FAILED, f"{type(error).__name__}: {said.splitlines()[0]}"))
            raise

    def _build(self) -> Scheduler:
        import torch

        torch.set_num_threads(self._spec.threads)  # holds for the thread that steps
        module, _, name = self._spec.build.partition(":")
        build: Callable[[Any, Telling], Served] = getattr(import_module(module), name)
        served = build(
            self._spec.arguments,
            lambda message, fraction: self._stand(Report(LOADING, message, fraction)),
        )
        self._scheduler = served.scheduler
        self._stand(Report(READY, slots=served.slots, facts=served.facts))
        return served.scheduler

    def _serve(self, scheduler: Scheduler) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._mail or self._ending or scheduler.busy)
                mails, self._mail = self._mail, []
                if self._ending:
                    return
                self._began_ns = perf_counter_ns()
            for mail in mails:
                for order in mail.orders:
                    with contextlib.suppress(UserError, QueueFullError):  # told as a row
                        scheduler.submit(order)
                for index in mail.cancels:
                    scheduler.cancel(index)
            self._tell(scheduler.step())
            if scheduler.broken:  # its requests were told as lost; another replica has them next
                self._stand(Report(FAILED, scheduler.broken))
                return

    def _tell(self, changes: Changes) -> None:
        for step in changes.steps:
            step.tree.draft_probs = {}  # large, and kept nowhere
        with self._changed:
            self._began_ns = 0
            self._told.arrivals.extend(changes.arrivals)
            self._told.ticks.extend(changes.ticks)
            self._told.finished.extend(changes.finished)
            if self._spec.keep_steps:
                self._told.steps.extend(changes.steps)

    def _stand(self, standing: Report) -> None:
        with self._changed:
            self._standing = standing
