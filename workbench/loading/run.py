"""One load run from spec to stored result: requests come in real time, a scheduler serves them.

The worker and the command line both call `execute`. What is kept is a run like any other, with each
step's tree, and beside it how the requests were served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import DecodeError, UserError
from engine.records import StepRecord
from engine.requests import Request
from engine.serving.errors import QueueFullError
from engine.serving.trace import ArrivalRow, Order
from workbench import environment
from workbench.events import LoadFinished, LoadStarted, Progress
from workbench.herald import Herald
from workbench.job import engine_for, step_texts, use_threads
from workbench.loading import definitions as of
from workbench.loading.generate import Wanted
from workbench.loading.metrics import of_run
from workbench.loading.plan import Plan, prepare
from workbench.loading.spec import LoadSpec
from workbench.ranks import RunningRanks, threads_per_rank
from workbench.store.index import prepare_folder
from workbench.store.reader import open_run
from workbench.store.schema import RunStatus
from workbench.store.writer import Recorder

if TYPE_CHECKING:
    from engine.cluster.fleet import Fleet
    from engine.decode import Engine
    from engine.serving.scheduler import Changes, Scheduler
    from workbench.events import Event
    from workbench.loading.replicas import EngineFacts

#: longest sleep while nothing is due: a stop is heeded within it
_NAP_S = 0.01


def execute(
    spec: LoadSpec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    *,
    runs: Path | None = None,
    on_scheduler: Callable[[Scheduler | Fleet], None] = lambda scheduler: None,
) -> LoadFinished:
    """Serve the load that `spec` describes, keep it, and say how it went.

    `emit` is called from another thread, in order; the last event is the returned `LoadFinished`.
    `should_stop` is asked once per step; requests under way are then cancelled. `on_scheduler` is
    given the scheduler before the first request, for those who look at what it leaves behind.

    Raises:
        UserError: wrong input, found before anything was served; no run is kept then.
    """
    herald = Herald(emit)
    try:
        folder = prepare_folder(runs)
        try:
            job = _LoadJob(spec, herald, should_stop, folder)
            job.on_scheduler = on_scheduler
            finished = job.run()
        except _StoppedError:
            finished = LoadFinished("", RunStatus.CANCELLED, {})
        herald.tell(finished)
        return finished
    finally:
        herald.close()


class _StoppedError(Exception):
    """Stop was asked for while models were loaded or compiled."""


class _LoadJob:
    """The state of one load run."""

    def __init__(
        self, spec: LoadSpec, herald: Herald, should_stop: Callable[[], bool], folder: Path
    ) -> None:
        self._spec, self._herald, self._should_stop = spec, herald, should_stop
        self._folder = folder
        self.on_scheduler: Callable[[Scheduler | Fleet], None] = lambda scheduler: None
        self._requests: dict[int, Request] = {}  # submitted, and not yet begun
        self._num_passes = self._num_completed = self._num_lost = 0
        self._lost = ""  # why the first one was lost
        self._ranks = RunningRanks()

    def run(self) -> LoadFinished:
        use_threads(threads_per_rank(self._spec.threads, self._spec.ranks))
        plan = prepare(self._spec, on_progress=self._progress, runs=self._folder)
        self._spec = plan.spec
        first = plan.pairs[0]
        self._recorder = Recorder(
            self._spec.model_dump(mode="json"),
            texts=step_texts(first.models, readers=1),
            folder=self._folder,
        )
        if self._spec.replicated:
            return self._finish(*self._serve_replicas(plan))
        try:
            engines = {
                one.name: engine_for(
                    one.spec, one.models, options=one.options, capacity=one.capacity,
                    on_progress=self._progress,
                )
                for one in plan.pairs
            }  # fmt: skip
            plain_step_ns = engines[first.name].plain_step_ns(plan.first)
        except (UserError, _StoppedError):
            self._recorder.discard()
            raise
        except BaseException as error:
            self._recorder.finish(RunStatus.FAILED, f"{type(error).__name__}: {error}")
            raise
        try:
            return self._finish(*self._serve(plan, engines, plain_step_ns))
        finally:
            for engine in engines.values():
                engine.close()

    def _progress(self, phase: str, message: str, fraction: float | None) -> None:
        if self._should_stop():
            raise _StoppedError
        self._herald.tell(Progress(phase, message, fraction))

    # --- serving ---

    def _serve(
        self, plan: Plan, engines: dict[str, Engine], plain_step_ns: int
    ) -> tuple[RunStatus, str]:
        from engine.serving.scheduler import Scheduler

        spec = self._spec
        self._begin(plan, engines, plain_step_ns)
        scheduler = Scheduler(
            engines, policy=spec.policy, budgets=spec.budgets, max_waiting=spec.max_waiting
        )
        self._ranks = RunningRanks.of(engines, clock=scheduler.now)
        return self._work(plan, scheduler)

    def _serve_replicas(self, plan: Plan) -> tuple[RunStatus, str]:
        from workbench.loading.replicas import started

        try:
            with started(
                plan, on_progress=self._progress, should_stop=self._should_stop
            ) as replicated:
                if replicated is None:
                    raise _StoppedError
                self._begin(plan, replicated.engines, replicated.plain_step_ns)
                return self._work(plan, replicated.fleet)
        except (UserError, _StoppedError):
            self._recorder.discard()
            raise
        except DecodeError as error:
            return RunStatus.FAILED, str(error)

    def _work(self, plan: Plan, scheduler: Scheduler | Fleet) -> tuple[RunStatus, str]:
        self.on_scheduler(scheduler)
        try:
            return self._loop(plan, scheduler)
        except DecodeError as error:
            self._take(scheduler.close(), plan)
            return RunStatus.FAILED, str(error)
        except BaseException as error:
            self._recorder.finish(RunStatus.FAILED, f"{type(error).__name__}: {error}")
            raise

    def _begin(
        self, plan: Plan, engines: Mapping[str, Engine | EngineFacts], plain_step_ns: int
    ) -> None:
        modes = sorted({engine.mode for engine in engines.values()})
        mode = "+".join(modes)
        first = plan.pairs[0]
        known = environment.describe(first.spec, **first.models.as_models(), mode=mode)
        settings = {name: one.setting for name, one in engines.items() if one.setting}
        if settings:
            known["setting"] = "; ".join(settings.values())
        on_ranks = [ranks for one in engines.values() if (ranks := one.parallel) is not None]
        if on_ranks:
            known["parallel"] = on_ranks[0].description
        if len(plan.pairs) > 1:
            known["pairs"] = {
                one.name: environment.describe(one.spec, **one.models.as_models(), mode=mode)[
                    "models"
                ]
                for one in plan.pairs
            }
        self._recorder.begin(mode=mode, plain_step_ns=plain_step_ns, environment=known)
        self._herald.tell(
            LoadStarted(
                self._recorder.run_id, mode, plan.source.total, self._spec.slots, tuple(engines)
            )
        )

    def _loop(self, plan: Plan, scheduler: Scheduler | Fleet) -> tuple[RunStatus, str]:
        """Requests as they come, a step, and again; until nothing is left or it is stopped."""
        source = plan.source
        while not (self._should_stop() or self._recorder.error):
            now = scheduler.now()
            for wanted in source.due(now):
                self._submit(scheduler, plan, wanted)
            for index in source.cancels(now):
                scheduler.cancel(index)
            if scheduler.busy:
                self._take(scheduler.step(), plan)
            elif source.exhausted:
                return self._outcome()
            else:
                _nap(source.next_ns(), scheduler.now())
        self._take(scheduler.close(), plan)
        return RunStatus.CANCELLED, ""

    def _submit(self, scheduler: Scheduler | Fleet, plan: Plan, wanted: Wanted) -> None:
        request = plan.prompts.request(wanted)
        self._requests[wanted.index] = request
        order = Order(
            request,
            wanted.arrival_ns,
            pair=wanted.pair,
            client=wanted.client,
            deadline_ns=wanted.deadline_ns,
            timeout_ns=wanted.timeout_ns,
        )
        with suppress(UserError, QueueFullError):  # a refusal is told with the next step
            scheduler.submit(order)

    def _take(self, changes: Changes, plan: Plan) -> None:
        """Keep and tell what happened since the last step."""
        for row in changes.arrivals:
            self._begun(row)
        # a fleet tells steps when their request has ended, and has numbered them
        steps = iter([] if self._spec.replicated else changes.steps)
        for tick in changes.ticks:
            for _, record in zip(tick.shares, steps, strict=False):
                self._keep(record, tick.row.end_ns)
            self._num_passes += 1
            self._herald.tell(tick)
        if self._spec.replicated:
            for record in changes.steps:
                self._recorder.append(record)
        for done in changes.finished:
            self._recorder.request_done(done)
        if changes.finished:
            self._recorder.lanes(self._ranks.take_lanes())
        self._recorder.ticks(changes.ticks)
        self._recorder.arrivals(changes.arrivals)
        for row in changes.arrivals:
            self._herald.tell(row)
            if row.reason is not None and row.ended_ns is not None:
                self._ended(row)
                plan.source.ended(row.request, row.ended_ns)

    def _begun(self, row: ArrivalRow) -> None:
        """Keep a request's prompt once it has a slot."""
        if row.admitted_ns is not None:
            request = self._requests.pop(row.request, None)
            if request is not None:
                self._recorder.request_started(request)

    def _ended(self, row: ArrivalRow) -> None:
        self._requests.pop(row.request, None)
        self._num_completed += row.reason in of.COMPLETED
        if row.reason == of.LOST:
            self._num_lost += 1
            self._lost = self._lost or row.message

    def _keep(self, record: StepRecord, end_ns: int) -> None:
        """Record a step; passes are counted over all pairs, times are on the scheduler's clock."""
        record.batch_step, record.time_ns = self._num_passes, end_ns
        record.tree.draft_probs = {}  # large, and not stored
        self._recorder.append(record)

    # --- after ---

    def _outcome(self) -> tuple[RunStatus, str]:
        if self._num_lost and not self._num_completed:
            return RunStatus.FAILED, f"No request completed: {self._lost}"
        return RunStatus.FINISHED, ""

    def _finish(self, status: RunStatus, message: str) -> LoadFinished:
        status = self._recorder.finish(status, message)
        message = message or self._recorder.error or ""
        run_id = self._recorder.run_id
        return LoadFinished(run_id, str(status), figures_of(run_id, self._folder), message)


def figures_of(run_id: str, folder: Path) -> dict[str, Any]:
    """The load metrics of a stored run as JSON values; empty where it cannot be read."""
    try:
        with open_run(run_id, folder) as run:
            found = of_run(run)
    except UserError:
        return {}
    return {} if found is None else found.as_json()


def _nap(next_ns: int | None, now_ns: int) -> None:
    left_s = _NAP_S if next_ns is None else (next_ns - now_ns) * 1e-9
    if left_s > 0:
        time.sleep(min(left_s, _NAP_S))
