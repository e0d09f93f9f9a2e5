"""The state of a run in a sentence, and its figures with what each means."""

from __future__ import annotations

from typing import Any

from workbench import metrics
from workbench.events import RunSummary
from workbench.view.live import Live

UNKNOWN = "–"


def figures(summary: RunSummary, plain_step_ns: int | None) -> list[dict[str, str]]:
    """The lead figures of a run, each with its definition."""
    speedup = metrics.live_speedup(summary, plain_step_ns)
    drafted = summary.drafted > 0
    return [
        _figure(
            f"{summary.tokens_per_step:.2f}" if summary.steps else UNKNOWN,
            "tokens per step",
            "Emitted tokens / steps, the bonus or correction included.",
        ),
        _figure(
            f"{summary.tokens_per_second:.0f}" if summary.decode_ns else UNKNOWN,
            "tokens per second",
            "Kept tokens / wall time since the end of prefill.",
        ),
        _figure(
            f"≈ {speedup:.2f}×" if speedup else UNKNOWN,
            "of plain speed, estimated",
            "Tokens per step × time of a plain step / time of a step. The plain step was timed on "
            "the same prompt before the run. Only a paired comparison measures a speedup.",
        ),
        _figure(
            f"{100 * summary.acceptance_rate:.0f} %" if drafted else UNKNOWN,
            "of drafts accepted",
            "Accepted / drafted tokens. It falls as trees grow: read it beside tokens per step.",
        ),
        _figure(str(summary.steps), "steps", "Passes of the target model over a draft tree."),
    ]


def _figure(value: str, label: str, help: str) -> dict[str, str]:
    return {"value": value, "label": label, "help": help}


def headline(live: Live) -> dict[str, Any]:
    """`state`, a sentence; `detail`, a line below it; `fraction` of the work done, if known."""
    summary, spec = live.summary, live.spec
    most = spec.max_new_tokens if spec else 0
    if live.active:
        if not summary.steps:
            progress = live.progress
            begun = "Reading the prompt …" if live.mode else "Starting the worker …"
            state = f"{progress.message.rstrip('.…')} …" if progress else begun
            fraction = progress.fraction if progress else None
            return {"state": state, "detail": _setup(live), "fraction": fraction}
        state = f"Decoding: {summary.kept} of {most} tokens"
        return {"state": state, "detail": _setup(live), "fraction": min(1.0, summary.kept / most)}
    return {"state": _outcome(live), "detail": _lesson(live), "fraction": None}


def _setup(live: Live) -> str:
    spec = live.spec
    if spec is None:
        return ""
    parts = [spec.method, f"{spec.target} with {spec.draft}" if spec.draft else spec.target]
    parts += [spec.dtype] + ([live.mode] if live.mode else [])
    return " · ".join(parts)


def _outcome(live: Live) -> str:
    summary = live.summary
    tokens = "1 token" if summary.kept == 1 else f"{summary.kept} tokens"
    seconds = f"{summary.decode_ns / 1e9:.2f} s"
    match live.status:
        case "finished":
            return f"Finished: {tokens} in {seconds}"
        case "cancelled":
            return f"Stopped after {tokens}; what was recorded is kept"
        case "failed":
            return f"The run failed after {tokens}" if summary.steps else "The run failed"
        case "interrupted":
            return f"Interrupted after {tokens}; what was recorded is kept"
        case "example":
            return f"An example: {tokens} in {seconds}. Press Run to decode your own"
    return "Press Run to decode the prompt on the left"


def _lesson(live: Live) -> str:
    """Whether it pays and what the time went on; only what the figures say."""
    summary = live.summary
    speedup = metrics.live_speedup(summary, live.plain_step_ns)
    setup = _setup(live)
    if speedup is None or not summary.drafted:
        return setup
    tau = summary.tokens_per_step
    shares = metrics.stage_shares(summary)
    where = f"scoring takes {shares['score']:.0%} of a step, drafting {shares['draft']:.0%}"
    if speedup > 1.05:
        verdict = f"By estimate it pays: {tau:.1f} tokens per step, while {where}."
    elif speedup < 0.95:
        verdict = f"By estimate it does not pay: {tau:.1f} tokens per step are too few; {where}."
    else:
        verdict = f"By estimate it makes little difference; {where}."
    return f"{verdict} {setup}"
