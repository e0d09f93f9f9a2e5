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
    shown = [
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
    if known := metrics.forecast(summary):
        shown.append(
            _figure(
                f"{known.predicted:.0f}",
                "tokens per second, predicted",
                f"What the method expected of each step before it was made; {known.measured:.0f} "
                "were measured over the same steps.",
            )
        )
    return shown


def _figure(value: str, label: str, help: str) -> dict[str, str]:
    return {"value": value, "label": label, "help": help}


def headline(live: Live) -> dict[str, Any]:
    """`state`, a sentence; `detail` and `setup`, lines below it; `fraction` of the work done."""
    setup = _setup(live)
    if live.active:
        state, fraction = _under_way(live)
        return {"state": state, "detail": setup, "setup": "", "fraction": fraction}
    return {"state": _outcome(live), "detail": _lesson(live), "setup": setup, "fraction": None}


def _under_way(live: Live) -> tuple[str, float | None]:
    kept = live.summary.kept
    if live.stopping:
        return "Stopping …", None
    if live.summary.steps and live.spec is not None:
        most = live.spec.max_new_tokens
        return f"Decoding: {kept} of {most} tokens", min(1.0, kept / most)
    if live.progress is not None:
        return live.progress.message.rstrip(".…") + " …", live.progress.fraction
    return ("Reading the prompt …" if live.mode else "Starting the worker …"), None


def _setup(live: Live) -> str:
    spec = live.spec
    if spec is None:
        return ""
    drafts = " and ".join(spec.drafts)
    parts = [spec.method, f"{spec.target} with {drafts}" if drafts else spec.target]
    parts += [spec.dtype] + ([live.mode] if live.mode else [])
    if spec.lossy:
        parts.append(f"lossy: {spec.verify} acceptance changes the law of the output")
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
    if speedup is None or not summary.drafted:
        return ""
    shares = metrics.stage_shares(summary)
    where = f"a step is {shares['score']:.0%} scoring and {shares['draft']:.0%} drafting"
    if speedup > 1.05:
        verdict = "pays"
    elif speedup < 0.95:
        verdict = "does not pay"
    else:
        verdict = "makes little difference"
    return f"By estimate it {verdict}: {where}"
