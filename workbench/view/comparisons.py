"""Stored comparisons as lines to choose from, newest first."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

from engine.errors import UserError
from engine.paths import runs_folder
from workbench.comparing import result
from workbench.comparing.result import Comparison
from workbench.view.visible import safe_text

_known: dict[tuple[Path, str], str] = {}
_lock = threading.Lock()


def comparison_labels(folder: Path | None = None) -> dict[str, str]:
    """A line for each comparison that can be read, by id. They are written once, and so read once.

    A file that is damaged is left out here; opening it by its id says why.
    """
    folder = folder or runs_folder()
    found = {}
    for comparison_id in result.comparison_ids(folder):
        key = (folder, comparison_id)
        with _lock:
            label = _known.get(key)
        if label is None:
            try:
                comparison = result.load(comparison_id, folder)
            except UserError:
                continue
            label = _label(comparison)
            if comparison.status != "interrupted":  # one under way reads so, and is written again
                with _lock:
                    _known[key] = label
        found[comparison_id] = label
    return found


def _label(comparison: Comparison) -> str:
    methods = list(dict.fromkeys(arm.label for arm in comparison.arms))
    workloads = [Path(name).stem or name for name in comparison.spec.workloads]
    shown = ", ".join(workloads[:3]) + (" …" if len(workloads) > 3 else "")
    parts = [_when(comparison.started), f"{len(methods)} methods", shown]
    if comparison.status != "finished":
        parts.append(comparison.status)
    return safe_text(" · ".join([*parts, comparison.comparison_id[-4:]]))


def _when(started: str) -> str:
    try:
        return f"{datetime.fromisoformat(started).astimezone():%d %b %H:%M}"
    except ValueError:
        return "unknown time"
