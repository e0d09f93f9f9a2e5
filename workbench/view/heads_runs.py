"""Trainings of heads as the Heads page shows them: where they are kept, how far they are, frames.

All of it is read from the logs that trainings write (`engine.training.heads_log`), so that one
started from a terminal is watched like one started on the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from engine.paths import runs_folder
from engine.training.heads_log import FILE, HeadRun, find_logs, read_log
from workbench.view.compare_form import duration
from workbench.view.visible import safe_text

#: points of the loss that are drawn; a long training writes many thousands
MOST_POINTS = 800
#: so much must be done before its pace says anything
_LEAST_DONE = 0.005


class Figures(NamedTuple):
    """How a training stands, as texts for tiles."""

    loss: str
    offset: int  # the nearest that it guesses
    first: str  # share of first guesses right there
    over_ngram: str | None  # by how much that is more than an n-gram's, None where not known
    rate: str
    tokens: str


def heads_folder() -> Path:
    """Where trainings that the page starts are kept, a folder each."""
    return runs_folder() / "heads"


def roots() -> list[Path]:
    """Where trainings are looked for: those of the page, and what the command line defaults to."""
    return [heads_folder(), Path("runs")]


def trainings() -> list[HeadRun]:
    """All of them, the latest first."""
    found = {run.folder.resolve(): run for root in roots() for run in find_logs(root)}
    return sorted(found.values(), key=lambda run: -float(run.start["time"]))


def names(found: list[HeadRun]) -> dict[str, HeadRun]:
    """Trainings by a name that is theirs alone: their folder's, with its parent's where needed."""
    named: dict[str, HeadRun] = {}
    for run in found:
        folder = run.folder.resolve()
        name = folder.name
        while name in named and folder != folder.parent:
            folder = folder.parent
            name = f"{folder.name}/{name}"
        named[name] = run
    return named


def label(name: str, run: HeadRun) -> str:
    """A line to choose it by. Nothing that changes: a box keeps showing the line it had."""
    kind, target = str(run.start.get("kind", "")), str(run.start.get("target", ""))
    return safe_text(f"{name} · {kind} for {target}")


def reread(folder: Path) -> HeadRun | None:
    """One training as it stands now."""
    return read_log(folder)


def changed_at(folder: Path) -> tuple[int, int]:
    """What changes whenever a training goes on: time and size of its log."""
    try:
        known = (folder / FILE).stat()
    except OSError:
        return (0, 0)
    return (known.st_mtime_ns, known.st_size)


def last(run: HeadRun) -> dict[str, Any]:
    """The latest line that says how far it is."""
    lines = [*run.steps[-1:], *run.accuracy[-1:], *([run.end] if run.end else [])]
    return max(lines, key=lambda line: float(line["time"]), default=run.start)


def fraction(run: HeadRun) -> float:
    """The share of the budget that is spent, 0 to 1."""
    return min(1.0, max(0.0, float(last(run).get("fraction", 0.0))))


def state(run: HeadRun) -> str:
    """running, finished, stopped, failed or killed."""
    if run.end is not None:
        return str(run.end.get("state", "finished"))
    return "running" if run.alive else "killed"


def state_told(run: HeadRun) -> str:
    """How it stands, in a sentence."""
    done, tokens = f"{fraction(run):.0%}", _count(int(last(run).get("tokens", 0)))
    message = safe_text(str((run.end or {}).get("message", "")))
    match state(run):
        case "running" if not run.steps:
            return "Preparing: the text is read, and the target writes some of its own."
        case "running":
            left = seconds_left(run)
            time_left = f", {duration(left)} left" if left is not None else ""
            return f"Training: {done} done{time_left}."
        case "finished":
            return f"Finished after {tokens} tokens."
        case "stopped":
            return f"Stopped at {done}; the checkpoint is kept, and it can go on."
        case "failed":
            return message or f"It failed at {done}."
        case _:
            return (
                f"It ended without a word at {done}: its process is gone. The last checkpoint is "
                "kept, and it can go on from there."
            )


def seconds_left(run: HeadRun) -> float | None:
    """By the pace since it was started or taken up; None while that says nothing."""
    since = [line for line in run.steps if float(line["time"]) >= float(run.start["time"])]
    if len(since) < 2:
        return None
    first, now = since[0], since[-1]
    done = float(now["fraction"]) - float(first["fraction"])
    took = float(now["time"]) - float(first["time"])
    if done < _LEAST_DONE or took <= 0:
        return None
    return (1.0 - float(now["fraction"])) * took / done


def figures(run: HeadRun) -> Figures:
    """Its latest figures."""
    step = run.steps[-1] if run.steps else {}
    shares = accuracy_frame(run, "held_out")
    offset, first, over = 2, "–", None
    if len(shares):
        latest = shares[shares["tokens"] == shares["tokens"].iloc[-1]].iloc[0]
        offset, first = int(latest["offset"]), f"{latest['top1']:.1%}"
        if (usual := ngram_shares(run, "top1").get(offset)) is not None:
            over = f"{100 * (latest['top1'] - usual):+.1f} points to an n-gram"
    return Figures(
        loss=f"{step['loss']:.3f}" if step.get("loss") is not None else "–",
        offset=offset,
        first=first,
        over_ngram=over,
        rate=f"{step['rate']:,.0f}" if step.get("rate") else "–",
        tokens=_count(int(last(run).get("tokens", 0))),
    )


def loss_frame(run: HeadRun) -> pd.DataFrame:
    """`tokens` and `loss` of the steps, thinned evenly to what can be seen."""
    steps = [line for line in run.steps if line.get("loss") is not None]
    if len(steps) > MOST_POINTS:
        every = len(steps) / MOST_POINTS
        steps = [steps[int(at * every)] for at in range(MOST_POINTS - 1)] + steps[-1:]
    return pd.DataFrame(
        {"tokens": [line["tokens"] for line in steps], "loss": [line["loss"] for line in steps]}
    )


def held_out_loss_frame(run: HeadRun) -> pd.DataFrame:
    """`tokens` and `loss` on held-out text."""
    lines = [line for line in run.accuracy if line.get("loss") is not None]
    return pd.DataFrame(
        {"tokens": [line["tokens"] for line in lines], "loss": [line["loss"] for line in lines]}
    )


def accuracy_frame(run: HeadRun, text: str) -> pd.DataFrame:
    """A line for each look and offset: `tokens`, `offset`, `top1`, `top5`.

    `text` is `held_out` (the corpus) or `written` (by the target).
    """
    return pd.DataFrame(
        [
            {"tokens": line["tokens"], "offset": int(offset), "top1": told["top1"],
             "top5": told["top5"]}
            for line in run.accuracy
            for offset, told in sorted((line.get(text) or {}).items(), key=lambda one: int(one[0]))
        ],
        columns=["tokens", "offset", "top1", "top5"],
    )  # fmt: skip


def ngram_shares(run: HeadRun, rank: str) -> dict[int, float]:
    """How often an n-gram of the same text is right, by offset; `rank` is `top1` or `top5`.

    Only offsets at which the head guesses too.
    """
    guessed = set(accuracy_frame(run, "held_out")["offset"])
    return {
        int(offset): float(one[rank])
        for offset, one in run.ngram.items()
        if int(offset) in guessed and rank in one
    }


def _count(tokens: int) -> str:
    if tokens >= 1_000_000:
        return f"{tokens / 1e6:.2f} M"
    return f"{tokens / 1e3:.0f} k" if tokens >= 10_000 else f"{tokens:,}"
