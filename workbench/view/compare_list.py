"""Stored comparisons as a table, newest first. Each file is read once and again when it changes."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

import pandas as pd

from engine.errors import UserError
from engine.paths import runs_folder
from workbench import metrics
from workbench.comparing import result
from workbench.comparing.arms import BASELINES, PLAIN
from workbench.comparing.result import ArmRun, Comparison
from workbench.statistics import medians
from workbench.view.visible import safe_text

COLUMNS = ("when", "fastest", "speedup", "arms", "workloads", "decodes", "models", "status")

_known: dict[Path, tuple[int, dict | None]] = {}
_lock = threading.Lock()


def comparisons_frame(runs: Path | None = None, *, under_way: str = "") -> pd.DataFrame:
    """One line per comparison with the columns COLUMNS, its id as index; cells of sweeps left out.

    `under_way` is the id of the one that is being measured: it is not over and has no line.
    """
    folder = (runs or runs_folder()) / "comparisons"
    lines, ids = [], []
    for comparison_id in result.comparison_ids(runs):
        line = _line(folder / f"{comparison_id}.json", comparison_id, runs)
        if line is not None and comparison_id != under_way:
            ids.append(comparison_id)
            lines.append(line)
    return pd.DataFrame(
        lines, index=pd.Index(ids, name="comparison", dtype=object), columns=list(COLUMNS)
    )


def changed_at(comparison_id: str, runs: Path | None = None) -> int:
    """When a comparison was written: what caches of its report go by."""
    file = (runs or runs_folder()) / "comparisons" / f"{comparison_id}.json"
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _line(file: Path, comparison_id: str, runs: Path | None) -> dict | None:
    changed = changed_at(comparison_id, runs)
    with _lock:
        known = _known.get(file)
    if known is not None and known[0] == changed:
        return known[1]
    try:
        found = result.load(comparison_id, runs)
        line = None if found.sweep else _describe(found)
    except UserError:  # damaged: told where it is opened by its id
        line = None
    with _lock:
        _known[file] = (changed, line)
    return line


def _describe(found: Comparison) -> dict:
    fastest = max(_speedups(found), default=None)
    methods = {arm.label for arm in found.arms if _is_method(arm)}
    spec = found.spec
    names = [name for name in (spec.target, spec.draft, *spec.other_drafts) if name]
    return {
        "when": _local(found.started),
        "fastest": safe_text(fastest[1]) if fastest else None,
        "speedup": fastest[0] if fastest else None,
        "arms": len(methods),
        "workloads": safe_text(", ".join(Path(name).name for name in spec.workloads)),
        "decodes": sum(len(arm.samples) for arm in found.arms),
        "models": safe_text(" + ".join(Path(name).name for name in names)),
        "status": found.status,
    }


def _speedups(found: Comparison) -> list[tuple[float, str]]:
    """Ratios of totals, without intervals: resampling them takes longer than a table may."""
    plain = {arm.group: arm for arm in found.arms if arm.method == PLAIN}
    speedups = []
    for arm in filter(_is_method, found.arms):
        base = plain.get(arm.group)
        ours, theirs = _times(arm), _times(base) if base else {}
        both = sorted(ours.keys() & theirs.keys())
        if both:
            total = medians([theirs[at] for at in both]).sum()
            speedups.append(
                (metrics.speedup(total, medians([ours[at] for at in both]).sum()), arm.label)
            )
    return speedups


def _times(arm: ArmRun) -> dict[int, list[float]]:
    times: dict[int, list[float]] = {}
    for sample in arm.samples:
        times.setdefault(sample.request, []).append(float(sample.decode_ns))
    return times


def _is_method(arm: ArmRun) -> bool:
    return arm.method != PLAIN and arm.method not in BASELINES


def _local(started: str) -> datetime | None:
    try:
        return datetime.fromisoformat(started).astimezone().replace(tzinfo=None, microsecond=0)
    except ValueError:
        return None
