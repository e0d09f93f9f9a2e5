"""One step as the view draws it: its tree, its words, its times."""

from __future__ import annotations

from typing import Any

from engine.records import Origin
from workbench import metrics
from workbench.events import StepDone
from workbench.view.folding import FOLD_ABOVE
from workbench.view.layout import layout
from workbench.view.visible import safe_text

_NEVER = 10**9


def step_facts(step: StepDone, number: int) -> dict[str, Any]:
    """All but the tree: `i` the step's number, its kept `tokens` with their origin, and so on."""
    record = step.record
    kept = zip(step.emitted_text, _origins(step), strict=True)
    return {
        "i": number,
        "tokens": [(safe_text(text), origin) for text, origin in kept][: record.num_kept],
        "accepted": record.verdict.num_accepted,
        "origin": int(record.verdict.origin),
        "words": step_words(step),
        "stages": stages(step),
    }


def step_layout(
    step: StepDone, *, unfolded: bool = False, pruned: bool = False, fold_above: int = FOLD_ABOVE
) -> dict[str, Any]:
    """The laid-out tree of one step; `unfolded` shows every branch, `pruned` also dropped nodes."""
    return layout(
        step.record,
        step.pieces_M,
        emitted=_emitted_piece(step),
        fold_above=_NEVER if unfolded else fold_above,
        pruned=pruned,
    )


def step_words(step: StepDone) -> str:
    """`6 drafted, 3 accepted, then a bonus`."""
    verdict = step.record.verdict
    return words(step.record.tree.num_drafted, verdict.num_accepted, verdict.origin)


def words(drafted: int, accepted: int, origin: Origin) -> str:
    """A step in words, from its counts and the origin of its last token."""
    if not drafted:
        return "nothing drafted"
    then = "a bonus" if origin is Origin.BONUS else "a correction"
    return f"{drafted} drafted, {accepted} accepted, then {then}"


def stages(step: StepDone) -> list[dict[str, Any]]:
    """The stages of a step with milliseconds as text and shares of its wall time."""
    times = step.record.times
    return [
        {
            "name": name,
            "ms": f"{nanoseconds / 1e6:.2f}",
            "share": round(metrics.ratio(nanoseconds, times.wall), 4),
        }
        for name, nanoseconds in zip(metrics.STAGES, times, strict=True)
    ]


def _origins(step: StepDone) -> list[int]:
    verdict = step.record.verdict
    return [int(Origin.DRAFT)] * verdict.num_accepted + [int(verdict.origin)]


def _emitted_piece(step: StepDone) -> str:
    """The bonus or correction for the eye; a run stored without it, by a node of its token."""
    if step.next_piece:
        return step.next_piece
    token = step.record.verdict.next_token
    for node, piece in enumerate(step.pieces_M):
        if int(step.record.tree.tokens_M[node]) == token:
            return piece
    return step.emitted_text[-1] or f"#{token}"
