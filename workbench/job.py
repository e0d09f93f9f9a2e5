"""One run from spec to stored result. The worker and the command line both call `execute`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import DecodeError, UserError
from engine.records import RequestRecord
from engine.requests import Request
from workbench import environment, models
from workbench.conversation import Conversation, conversations, questions_of
from workbench.events import (
    Event,
    Progress,
    RequestDone,
    RequestStarted,
    RunFinished,
    RunStarted,
    RunSummary,
)
from workbench.herald import Herald
from workbench.profiling import profile_finder
from workbench.ranks import ranks_config, threads_per_rank
from workbench.spec import RunSpec
from workbench.steptext import StepTexts
from workbench.store.index import prepare_folder
from workbench.store.schema import RunStatus
from workbench.store.writer import Recorder

if TYPE_CHECKING:
    from engine.decode import Engine, StepOutput
    from workbench.workloads import Question


def execute(
    spec: RunSpec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    *,
    runs: Path | None = None,
) -> RunFinished:
    """Decode what `spec` asks for, keep every step, and say how it went.

    `emit` is called from another thread, in order; the last event is the returned `RunFinished`.
    `should_stop` is asked once per step. `runs` is where the run is stored, by default the
    user's folder of runs. A run stopped before it began has an empty `run_id`.

    Raises:
        UserError: wrong input, found before anything was decoded; no run is kept then. What goes
            wrong later ends the run as failed, with a message.
    """
    herald = Herald(emit)
    try:
        folder = prepare_folder(runs)
        try:
            finished = _Job(spec, herald, should_stop, folder).run()
        except _StoppedError:
            finished = RunFinished("", RunStatus.CANCELLED, RunSummary())
        herald.tell(finished)
        return finished
    finally:
        herald.close()


class _StoppedError(Exception):
    """Stop was asked for while models were loaded or compiled."""


class _Plan(NamedTuple):
    """All that can be checked and loaded before a run is worth keeping."""

    pair: models.Pair
    options: Any
    questions: list[Question]
    first: Request
    capacity: int
    num_requests: int


class _Job:
    """The state of one run."""

    def __init__(
        self, spec: RunSpec, herald: Herald, should_stop: Callable[[], bool], folder: Path
    ) -> None:
        self._spec, self._herald, self._should_stop = spec, herald, should_stop
        self._folder = folder
        self._num_steps = 0
        self._ended = 0  # clock at the end of the last step or admission
        self._record_ns = 0  # spent on recording since then

    def run(self) -> RunFinished:
        plan = self._prepare()
        self._herald.texts = texts = step_texts(plan.pair)
        self._recorder = Recorder(
            self._spec.model_dump(mode="json"), texts=texts, folder=self._folder
        )
        try:
            status, message = self._decode_all(plan)
        except (UserError, _StoppedError):
            self._recorder.discard()
            raise
        except BaseException as error:
            self._recorder.finish(RunStatus.FAILED, f"{type(error).__name__}: {error}")
            raise
        status = self._recorder.finish(status, message)
        message = message or self._recorder.error or ""
        return RunFinished(self._recorder.run_id, str(status), self._recorder.summary, message)

    # --- before ---

    def _prepare(self) -> _Plan:
        """Check everything that can be refused. Raises UserError."""
        spec = self._spec = models.resolve_references(self._spec, self._folder)
        options = models.check_spec(spec)
        questions = questions_of(spec)
        use_threads(threads_per_rank(spec.threads, spec.ranks))
        self._progress("load", "Loading models", None)
        pair = models.load_pair(spec, on_progress=lambda m, f: self._progress("load", m, f))
        talks = list(conversations(questions, tokenizer=pair.target.tokenizer, spec=spec))
        firsts = [talk.next_request() for talk in talks]
        for request in firsts:
            _check_length(request, pair.target.context_length)
        return _Plan(
            pair=pair,
            options=options,
            questions=questions,
            first=firsts[0],
            capacity=max(
                talk.longest(len(first.prompt_ids))
                for talk, first in zip(talks, firsts, strict=True)
            ),
            num_requests=sum(len(question.turns) for question in questions) * spec.repeats,
        )

    def _build(self, plan: _Plan) -> Engine:
        return engine_for(
            self._spec,
            plan.pair,
            options=plan.options,
            capacity=plan.capacity,
            on_progress=self._progress,
        )

    def _progress(self, phase: str, message: str, fraction: float | None) -> None:
        if self._should_stop():
            raise _StoppedError
        self._herald.tell(Progress(phase, message, fraction))

    # --- decoding ---

    def _decode_all(self, plan: _Plan) -> tuple[RunStatus, str]:
        """Every repeat of the workload. Raises UserError only if nothing was decoded yet."""
        engine: Engine | None = None
        try:
            engine = self._build(plan)
            plain_step_ns = engine.plain_step_ns(plan.first)
            self._begin(plan, engine, plain_step_ns)
            for repeat in range(self._spec.repeats):
                if not self._decode_once(engine, plan, repeat):
                    return RunStatus.CANCELLED, ""
        except UserError as error:
            if self._num_steps == 0:
                raise
            return RunStatus.FAILED, str(error)
        except DecodeError as error:
            return RunStatus.FAILED, str(error)
        except (MemoryError, RuntimeError) as error:
            if not models.out_of_memory(error):
                raise
            return RunStatus.FAILED, (
                "Memory ran out while decoding; use a smaller batch, shorter prompts, fewer nodes "
                "or a smaller model."
            )
        finally:
            if engine is not None:
                engine.close()
        return RunStatus.FINISHED, ""

    def _begin(self, plan: _Plan, engine: Engine, plain_step_ns: int | None) -> None:
        mode = engine.mode
        known, note = environment.describe(self._spec, **plan.pair.as_models(), mode=mode), ""
        if engine.setting:
            known["setting"] = engine.setting
        if engine.parallel is not None:
            known["parallel"], note = engine.parallel.description, engine.parallel.note
            engine.parallel.begin_lanes()
        self._recorder.begin(mode=mode, plain_step_ns=plain_step_ns, environment=known)
        started = RunStarted(
            self._recorder.run_id, mode, plain_step_ns, plan.num_requests, note=note
        )
        self._herald.tell(started)

    def _decode_once(self, engine: Engine, plan: _Plan, repeat: int) -> bool:
        """The workload once; False if it was stopped, or could not be written any more."""
        tokenizer = plan.pair.target.tokenizer
        pending = deque(conversations(plan.questions, tokenizer=tokenizer, spec=self._spec))
        talking: dict[int, Conversation] = {}
        while pending or talking:
            if self._should_stop() or self._recorder.error:
                for record in engine.cancel():
                    self._request_done(record)
                if engine.parallel is not None:
                    self._recorder.lanes(engine.parallel.take_lanes())
                return False
            talks = [pending.popleft() for _ in range(min(len(pending), engine.num_free))]
            requests = [talk.next_request(repeat) for talk in talks]
            self._admit(engine, requests)
            talking |= {r.index: talk for r, talk in zip(requests, talks, strict=True)}
            output = engine.step()
            self._keep(output, repeat)
            if engine.parallel is not None and output.finished:
                self._recorder.lanes(engine.parallel.take_lanes())
            for record in output.finished:
                self._request_done(record)
                talk = talking.pop(record.request)
                talk.answer(record.text)
                if not talk.finished:
                    pending.appendleft(talk)
        return True

    def _admit(self, engine: Engine, requests: list[Request]) -> None:
        if not requests:
            return
        for request in requests:
            self._recorder.request_started(request)
            self._herald.tell(
                RequestStarted(request.index, request.question_id, request.turn, request.prompt)
            )
        engine.add(*requests)
        self._ended, self._record_ns = time.perf_counter_ns(), 0

    def _keep(self, output: StepOutput, repeat: int) -> None:
        """Record a pass. What passed since the last one beside the engine's own time joins it.

        A step cannot contain the cost of recording itself: each carries that of the one before.
        """
        now = time.perf_counter_ns()
        for record in output.steps:
            outside = max(0, now - self._ended - record.times.wall)
            recording = min(self._record_ns, outside)
            record.times = record.times._replace(
                record=record.times.record + recording,
                unaccounted=record.times.unaccounted + outside - recording,
            )
            record.tree.draft_probs = {}  # large, and not stored
            self._recorder.append(record, repeat)
            self._herald.tell(record)
        self._num_steps += len(output.steps)
        self._ended = now
        self._record_ns = time.perf_counter_ns() - now

    def _request_done(self, record: RequestRecord) -> None:
        self._recorder.request_done(record)
        self._herald.tell(RequestDone(record))


def engine_for(
    spec: RunSpec,
    pair: models.Pair,
    *,
    options: Any,
    capacity: int,
    on_progress: Callable[[str, str, float | None], None],
) -> Engine:
    """The engine that a spec asks for, with the pair's profile on this machine where it has one.

    `capacity` is the most tokens of a prompt and its answer. Raises UserError for what does not go
    together.
    """
    from engine.engine import EngineConfig, build_engine
    from engine.sampling import Sampling

    config = EngineConfig(
        method=spec.method,
        options=options,
        sampling=Sampling(spec.temperature, spec.top_k, spec.top_p, spec.seed),
        verify=spec.verify,
        typical=spec.typical,
        children=spec.children,
        cache=spec.cache,
        batch=spec.batch,
        execution=spec.execution,
        kernels=spec.kernels,
        ignore_eos=spec.ignore_eos,
        capacity=capacity,
        on_progress=on_progress,
        profile_for=profile_finder(pair, cache=spec.cache, batch=spec.batch),
        ranks=ranks_config(
            spec.ranks, parallel=spec.parallel, placement=spec.placement, threads=spec.threads
        ),
    )
    if config.ranks is not None:
        on_progress("ranks", f"Starting {spec.ranks} ranks", None)
    return build_engine(config, **pair.as_models())


def step_texts(pair: models.Pair, *, readers: int = 2) -> StepTexts:
    """How the target's tokens become text, for so many threads that read it."""
    from engine.text import IncrementalText, visible_piece

    tokenizer = models.display_tokenizer(pair.target)
    return StepTexts(
        piece=lambda token: visible_piece(tokenizer, token),
        incremental=lambda: IncrementalText(tokenizer),
        readers=readers,
    )


def _check_length(request: Request, context_length: int) -> None:
    length = len(request.prompt_ids)
    if length >= context_length:
        which = (
            f"The prompt of question {request.question_id}" if request.question_id else "The prompt"
        )
        raise UserError(
            f"{which} has {length} tokens; the model takes {context_length}, the answer included. "
            "Shorten it."
        )


@cache
def _default_threads() -> int:
    import torch

    return torch.get_num_threads()


def use_threads(threads: int | None) -> None:
    """Give torch so many threads; None: as many as it chose when the process began."""
    import torch

    default = _default_threads()  # asked before it is first changed
    wanted = threads or default
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
