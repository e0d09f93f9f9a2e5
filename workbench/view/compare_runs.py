"""Stored runs set side by side: what can be said of them, and why no speedup is among it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.comparing.arms import PLAIN
from workbench.store.index import RunEntry
from workbench.store.schema import RunStatus
from workbench.view.visible import safe_text

#: what must be alike, in words, and the fields of a spec that say it
_ALIKE = {
    "prompts": ("prompt", "workload", "limit"),
    "target models": ("target",),
    "dtypes": ("dtype",),
    "devices": ("device",),
    "sampling": ("temperature", "top_k", "top_p", "seed"),
    "cache settings": ("cache",),
}


def shared_comparison(entries: Sequence[RunEntry]) -> str:
    """The comparison whose arms all of these are, plain decoding's measured beside; or nothing."""
    found = {entry.spec.get("comparison") for entry in entries}
    return str(next(iter(found))) if len(found) == 1 and None not in found else ""


def why_no_speedup(entries: Sequence[RunEntry]) -> list[str]:
    """Reasons, the weightiest first. One always holds: the runs were not taken in turn."""
    reasons = []
    for what, fields in _ALIKE.items():
        if len({_frozen([entry.spec.get(field) for field in fields]) for entry in entries}) > 1:
            reasons.append(f"Their {what} differ.")
    if len({entry.mode for entry in entries}) > 1:
        modes = ", ".join(sorted({entry.mode or "unknown" for entry in entries}))
        reasons.append(f"Their ways of execution differ: {modes}.")
    if any(entry.status is not RunStatus.FINISHED for entry in entries):
        reasons.append("Not all of them were decoded to the end.")
    if len({_tokens(entry) for entry in entries}) > 1:
        reasons.append("They made different numbers of tokens.")
    if not any(entry.method == PLAIN for entry in entries):
        reasons.append("None of them is plain decoding, against which a speedup is measured.")
    reasons.append(
        "They were measured at different times and not in turn, so whatever else the machine did "
        "then is in their times."
    )
    return reasons


def arms_of(entries: Sequence[RunEntry]) -> list[str]:
    """These runs' methods and options as arms, to measure them properly."""
    from workbench.comparing.expand import arm_text

    arms = []
    for entry in entries:
        if entry.method and entry.method != PLAIN:
            arms.append(entry.spec.get("arm") or arm_text(entry.method, entry.spec["options"]))
    return [safe_text(arm) for arm in dict.fromkeys(arms)]


def _tokens(entry: RunEntry) -> int:
    return int(entry.summary.get("kept") or 0)


def _frozen(values: list[Any]) -> str:
    return repr(values)
