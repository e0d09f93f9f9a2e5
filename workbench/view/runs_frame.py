"""The stored runs as a table for the pickers: from their index alone, newest first."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from engine.paths import runs_folder
from workbench.store.index import RunEntry, list_runs
from workbench.store.schema import RunStatus
from workbench.view.forms import preview
from workbench.view.visible import safe_text

COLUMNS = (
    *("method", "options", "prompt", "models", "status"),
    *("tokens_per_step", "tokens_per_second", "tokens", "when"),
)
_MOST_OPTIONS = 60

_Stamp = tuple[tuple[str, int], ...]
_known: dict[Path, tuple[_Stamp, list[RunEntry]]] = {}
_lock = threading.Lock()


def stored_runs(folder: Path | None = None) -> list[RunEntry]:
    """All index entries, newest first; read again only when a file of the index has changed.

    Runs under way are read each time: whether their process lives is in no file.
    """
    folder = folder or runs_folder()
    stamp = _stamp(folder)
    with _lock:
        known = _known.get(folder)
    if known is not None and known[0] == stamp:
        return known[1]
    entries = list_runs(folder)
    if all(entry.status is not RunStatus.RUNNING for entry in entries):
        with _lock:
            _known[folder] = (stamp, entries)
    return entries


def runs_frame(entries: Iterable[RunEntry]) -> pd.DataFrame:
    """One line per run with the columns COLUMNS, the run's id as index, in the given order.

    `tokens_per_step` and `tokens_per_second` are missing where a run made no step; `when` is local
    time. All text is safe to show.
    """
    entries = list(entries)
    frame = pd.DataFrame(
        [_row(entry) for entry in entries],
        index=pd.Index([entry.run_id for entry in entries], name="run", dtype=object),
        columns=list(COLUMNS),
    )
    numbers = {"tokens_per_step": float, "tokens_per_second": float, "tokens": int}
    return frame.astype(numbers | {"when": "datetime64[s]"})


def run_label(entry: RunEntry) -> str:
    """One line that tells a run from others; unique, as it ends with the end of the run's id."""
    row = _row(entry)
    parts = [row["method"], row["options"], row["prompt"]]
    if row["tokens_per_step"] is not None:
        parts.append(f"{row['tokens_per_step']:.2f} tokens/step")
    if entry.status is not RunStatus.FINISHED:
        parts.append(row["status"])
    if row["when"] is not None:
        parts.append(f"{row['when']:%d %b %H:%M}")
    return " · ".join([part for part in parts if part] + [entry.run_id[-4:]])


def options_text(spec: dict[str, Any]) -> str:
    """The method's options that were chosen, in a line: `budget 64, depth 6`."""
    options = spec.get("options") or {}
    line = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in options.items())
    return _short(safe_text(line), _MOST_OPTIONS)


def models_text(spec: dict[str, Any]) -> str:
    """`target + draft`; of folders the last part."""
    names = [str(spec[role]) for role in ("target", "draft") if spec.get(role)]
    names += map(str, spec.get("other_drafts") or [])
    return safe_text(" + ".join(Path(name).name or name for name in names))


def prompt_text(spec: dict[str, Any]) -> str:
    """The workload's name, or a line of the prompt."""
    return preview(str(spec.get("workload") or spec.get("prompt") or ""))


def _row(entry: RunEntry) -> dict[str, Any]:
    summary = entry.summary
    has_steps = bool(summary.get("steps"))
    return {
        "method": safe_text(str(entry.spec.get("arm") or entry.method or "unknown")),
        "options": options_text(entry.spec),
        "prompt": prompt_text(entry.spec),
        "models": models_text(entry.spec),
        "status": str(entry.status),
        "tokens_per_step": summary.get("tokens_per_step") if has_steps else None,
        "tokens_per_second": summary.get("tokens_per_second") if has_steps else None,
        "tokens": int(summary.get("kept") or 0),
        "when": _local(entry.started),
    }


def _local(started: str) -> datetime | None:
    try:
        return datetime.fromisoformat(started).astimezone().replace(tzinfo=None, microsecond=0)
    except ValueError:
        return None


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _stamp(folder: Path) -> _Stamp:
    import os

    found: list[tuple[str, int]] = []
    try:
        with os.scandir(folder) as files:
            found = [
                (file.name, file.stat().st_mtime_ns)
                for file in files
                if file.name.endswith((".json", ".duckdb"))
            ]
    except OSError:
        return ()
    return tuple(sorted(found))


def places(ids: Sequence[str], wanted: Iterable[str]) -> list[int]:
    """Where the wanted runs stand in a table of `ids`; those that are gone are left out."""
    at = {run_id: place for place, run_id in enumerate(ids)}
    return sorted(at[run_id] for run_id in wanted if run_id in at)
