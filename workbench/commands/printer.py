"""What `draftree run` shows: streamed text with figures, or one JSON object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

from rich.status import Status
from rich.text import Text

from engine.records import RequestRecord
from workbench import metrics
from workbench.events import (
    Event,
    Progress,
    RequestDone,
    RequestStarted,
    RunFinished,
    RunStarted,
    StepDone,
)
from workbench.snapshot import text_tokens
from workbench.spec import RunSpec
from workbench.terminal import (
    ORIGIN_STYLES,
    ORIGIN_WORDS,
    err,
    one_line,
    out,
    print_json,
    safe_text,
    say,
    write_token,
)

#: characters of the prompt's end that are shown
_PROMPT_SHOWN = 1000


class Collector(ABC):
    """Keeps what the end needs, and shows progress on stderr."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.started: RunStarted | None = None
        self.done: list[RequestRecord] = []
        self._status: Status | None = None
        self._said = ""

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.quiet()

    def take(self, event: Event) -> None:
        """Take in one event. Called from another thread, in order."""
        match event:
            case Progress():
                self.progress(event.message, event.fraction)
            case RunStarted():
                self.started = event
                if event.note:
                    say(event.note)
            case RequestStarted() if self.many:
                whole = self.started.num_requests if self.started else 0
                self.progress(f"Request {len(self.done) + 1} of {whole}", None)
            case RequestDone():
                self.done.append(event.record)

    @abstractmethod
    def finish(self, finished: RunFinished) -> None:
        """Show the outcome."""

    @property
    def many(self) -> bool:
        """Whether there is more than one request to tell apart."""
        return self.started is not None and self.started.num_requests > 1

    def progress(self, message: str, fraction: float | None) -> None:
        """Say what is going on: a moving line in a terminal, one line each elsewhere."""
        console = err()
        if not console.is_terminal:
            if message != self._said:
                say(message)
            self._said = message
            return
        shown = Text(one_line(message, 100))
        if fraction is not None:
            shown.append(f"  {fraction:.0%}", style="dim")
        if self._status is None:
            self._status = console.status(shown)
            self._status.start()
        else:
            self._status.update(shown)

    def quiet(self) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class StreamPrinter(Collector):
    """Text as it comes, then the figures. Requests decoded together are shown one by one."""

    def take(self, event: Event) -> None:
        """Print text the moment it arrives."""
        super().take(event)
        match event:
            case RequestStarted() if self.spec.batch == 1:
                if self.many:
                    self._heading(event.question_id, event.turn, event.request)
                self._prompt(event.prompt)
            case StepDone() if self.spec.batch == 1:
                self.quiet()
                for token in text_tokens(event):
                    if token.kept and token.text:
                        write_token(token.text, token.origin)
            case RequestDone():
                record = event.record
                if self.spec.batch > 1:
                    self._heading(record.question_id, record.turn, record.request)
                    write_token(record.text)
                out().print()

    def finish(self, finished: RunFinished) -> None:
        """Print the figures and where the run is kept."""
        from workbench.figures_text import figures

        if not finished.summary.steps:
            return
        console = out()
        if len(self.done) == 1:
            console.print(Text(f"\n({self.done[0].finish_reason})", style="dim"), end="")
        console.print()
        if console.is_terminal:
            console.print(_legend())
        plain_step_ns = self.started.plain_step_ns if self.started else None
        mode = self.started.mode if self.started else None
        console.print(figures(finished.summary, plain_step_ns=plain_step_ns, mode=mode))
        if self.spec.lossy:
            console.print(f"Lossy: {self.spec.verify} acceptance changes the law of the output.")
        where = f"run {finished.run_id}   see its trees: draftree show {finished.run_id} --step 0"
        console.print(Text(where, style="dim"))

    def _prompt(self, prompt: str) -> None:
        """The end of the prompt, so that the answer reads on from it; in a terminal only."""
        if out().is_terminal:
            self.quiet()
            end = prompt[-_PROMPT_SHOWN:]
            out().print(Text(("…" if end != prompt else "") + safe_text(end), style="dim"), end="")

    def _heading(self, question: str, turn: int, request: int) -> None:
        self.quiet()
        name = one_line(question or f"request {request}", 60)
        out().print(Text(f"\n── {name}{f', turn {turn + 1}' if turn else ''} ──", style="bold"))


def _legend() -> Text:
    legend = Text()
    for origin, word in ORIGIN_WORDS.items():
        legend.append(word, style=ORIGIN_STYLES[origin])
        legend.append("   ")
    return legend


class JsonPrinter(Collector):
    """One object on stdout at the end."""

    def finish(self, finished: RunFinished) -> None:
        """Print it."""
        print_json(result_object(self.spec, finished, self.done))


def result_object(
    spec: RunSpec, finished: RunFinished, done: list[RequestRecord]
) -> dict[str, Any]:
    """What `draftree run --json` prints. `stages` are nanoseconds over all steps."""
    summary = finished.summary
    result: dict[str, Any] = {
        "run_id": finished.run_id,
        "status": str(finished.status),
        "method": spec.method,
        "tokens_per_second": summary.tokens_per_second,
        "tokens_per_step": summary.tokens_per_step,
        "acceptance_rate": summary.acceptance_rate,
        "stages": {stage: summary.stages_ns.get(stage, 0) for stage in metrics.STAGES},
        "steps": summary.steps,
        "tokens": summary.kept,
        "prefill_ns": summary.prefill_ns,
        "decode_ns": summary.decode_ns,
        "repetition": summary.repetition,
    }
    if finished.message:
        result["message"] = finished.message
    if spec.workload is not None:
        result["requests"] = [_request_object(record) for record in done]
    elif done:
        result |= _answer(done[-1])
    else:
        result |= {"text": "", "token_ids": [], "finish_reason": None}
    return result


def _answer(record: RequestRecord) -> dict[str, Any]:
    return {
        "text": record.text,
        "token_ids": record.token_ids,
        "finish_reason": str(record.finish_reason),
    }


def _request_object(record: RequestRecord) -> dict[str, Any]:
    return {
        "request": record.request,
        "question_id": record.question_id,
        "category": record.category,
        "turn": record.turn,
        "repeat": record.repeat,
        "prompt": record.prompt,
        **_answer(record),
        "tokens_per_second": metrics.tokens_per_second(record.num_kept, record.decode_ns),
        "tokens_per_step": metrics.tokens_per_step(record.num_emitted, record.num_steps),
        "acceptance_rate": metrics.acceptance_rate(record.num_accepted, record.num_drafted),
        "prefill_ns": record.prefill_ns,
        "decode_ns": record.decode_ns,
        "repetition": record.repetition,
    }
