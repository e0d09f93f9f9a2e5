"""A race of recorded runs: groups of runs of one prompt, and what the race component gets once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import UserError
from workbench.store.index import RunEntry
from workbench.store.reader import RunReader, open_run
from workbench.store.schema import ORIGIN_NAMES, RunStatus
from workbench.view.forms import preview
from workbench.view.runs_frame import options_text
from workbench.view.visible import safe_text

MOST_LANES = 4
_MOST_OPTIONS = 24  # in a label
_UNMARKED = 0  # plain decoding has nothing to tell apart
_ORIGINS = {word: int(origin) for origin, word in ORIGIN_NAMES.items()}
_ENDED = (RunStatus.FINISHED, RunStatus.CANCELLED)
#: what makes two runs write the same text
_TEXT = ("target", "temperature", "top_k", "top_p", "seed", "dtype", "verify")


class Group(NamedTuple):
    """Runs of one prompt or workload, newest first."""

    key: str  # of its newest run: short, and it stands in the address
    label: str
    entries: list[RunEntry]


class Question(NamedTuple):
    """A request that all chosen runs decoded."""

    request: int
    label: str


def can_race(entry: RunEntry) -> bool:
    """Whether a run recorded its steps to the end or to where it was stopped."""
    return (
        entry.status in _ENDED
        and bool(entry.summary.get("steps"))
        and not entry.method.startswith("hf-")
    )


def groups(entries: Iterable[RunEntry]) -> list[Group]:
    """Prompts with two runs or more, that of the newest run first."""
    found: dict[tuple[str, str], list[RunEntry]] = {}
    for entry in filter(can_race, entries):
        spec = entry.spec
        source = ("workload", spec["workload"]) if spec.get("workload") else ("", spec["prompt"])
        found.setdefault(source, []).append(entry)
    return [
        Group(
            key=runs[-1].run_id,  # the oldest: it stays while others are added
            label=safe_text(f"Workload {text}") if kind else preview(str(text)),
            entries=runs,
        )
        for (kind, text), runs in found.items()
        if len(runs) > 1
    ]


def lane_label(entry: RunEntry) -> str:
    """Method and options, with the end of the id that tells equal ones apart."""
    name = safe_text(str(entry.spec.get("arm") or entry.method))
    options = options_text(entry.spec)
    if len(options) > _MOST_OPTIONS:
        options = options[: _MOST_OPTIONS - 1] + "…"
    return " · ".join(filter(None, [name, options, entry.run_id[-4:]]))


def first_choice(group: Group) -> list[str]:
    """Of the runs that write one text the newest by method and options, plain decoding first.

    Where several texts were written, that of most methods.
    """
    alike: dict[tuple[str, ...], dict[tuple[str, str], RunEntry]] = {}
    for entry in group.entries:
        text = tuple(str(entry.spec.get(name)) for name in _TEXT)
        arm = (entry.method, str(entry.spec.get("options")))
        alike.setdefault(text, {}).setdefault(arm, entry)
    runs = list(max(alike.values(), key=len).values())
    if len(runs) < 2:
        runs = group.entries[:2]
    plain = [entry for entry in runs if entry.method == "autoregressive"][:1]
    others = [entry for entry in runs if entry not in plain]
    return [entry.run_id for entry in [*plain, *others][:MOST_LANES]]


def questions(run_ids: Sequence[str], folder: Path | None = None) -> list[Question]:
    """Requests that all of the runs decoded. Raises UserError for a run that cannot be read."""
    common: dict[int, str] | None = None
    for run_id in run_ids:
        with open_run(run_id, folder) as run:
            asked = run.query(
                """SELECT request, question_id, turn, prompt FROM request
                WHERE "repeat" = 0 AND num_steps > 0 ORDER BY request"""
            ).to_dict("records")
        mine = {int(row["request"]): _question_label(row) for row in asked}
        common = mine if common is None else {at: common[at] for at in common if at in mine}
    return [Question(at, label) for at, label in (common or {}).items()]


def _question_label(row: dict[Any, Any]) -> str:
    name = safe_text(str(row["question_id"] or ""))
    turn = f", turn {int(row['turn']) + 1}" if row["turn"] else ""
    shown = preview(str(row["prompt"]))
    return f"{name}{turn} · {shown}" if name else shown


def race_payload(
    run_ids: Sequence[str], request: int, folder: Path | None = None
) -> dict[str, Any]:
    """All lanes of one race. Raises UserError."""
    if not 2 <= len(run_ids) <= MOST_LANES:
        raise UserError(f"A race takes 2 to {MOST_LANES} runs; {len(run_ids)} are chosen.")
    lanes, texts, prompt = [], [], ""
    for run_id in run_ids:
        with open_run(run_id, folder) as run:
            lane, tokens, prompt = _lane(run, request)
        lanes.append(lane)
        texts.append(tokens)
    return {
        "identity": f"{'/'.join(run_ids)}/{request}",
        "prompt": safe_text(prompt),
        "lanes": lanes,
        "difference": difference([lane["label"] for lane in lanes], texts),
    }


def _lane(run: RunReader, request: int) -> tuple[dict[str, Any], list[int], str]:
    rows = run.requests().query("request == @request and repeat == 0").to_dict("records")
    if not rows:
        raise UserError(f"Run {run.run_id} has no request {request}.")
    steps = run.steps(request=request, repeat=0).to_dict("records")
    tokens = run.tokens(request=request, repeat=0).query("kept")
    drafts = any(step["num_drafted"] for step in steps)
    kept: dict[int, list[tuple[str, int]]] = {}
    for step, text, origin in zip(tokens["step"], tokens["text"], tokens["origin"], strict=True):
        mark = _ORIGINS[origin] if drafts else _UNMARKED
        kept.setdefault(int(step), []).append((safe_text(text), mark))
    clock, bursts = 0.0, []
    for step in steps:
        clock += step["wall_ns"] / 1e6
        bursts.append([round(clock, 3), kept.get(int(step["step"]), [])])
    spec, row = run.info.spec, rows[0]
    lane = {
        "run": run.run_id,
        "label": safe_text(spec.arm or spec.method),
        "detail": options_text(spec.model_dump()) or "default options",
        "prefill": round((row["prefill_ns"] or 0) / 1e6, 3),
        "bursts": bursts,
        "tokens": len(tokens),
    }
    return lane, tokens["token"].tolist(), str(row["prompt"])


def difference(labels: Sequence[str], texts: Sequence[Sequence[int]]) -> str:
    """Where the texts part, in a sentence; empty where none does."""
    first, said = texts[0], []
    for label, other in zip(labels[1:], texts[1:], strict=True):
        shared = next(
            (at for at, (a, b) in enumerate(zip(first, other, strict=False)) if a != b),
            min(len(first), len(other)),
        )
        if shared < min(len(first), len(other)):
            said.append(f"{label} parts from {labels[0]} at token {shared + 1}")
        elif len(first) != len(other):
            said.append(f"{label} has {len(other)} tokens, {labels[0]} {len(first)}")
    return f"The texts differ: {'; '.join(said)}." if said else ""
