"""Measuring pass times on stored runs of one set-up.

The set-up is all that pass times depend on: models, dtype, device, execution, cache, threads; steps
that served one request only. Medians throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from engine.errors import UserError
from engine.records import StageTimes
from workbench import frames
from workbench.store.index import RunEntry, iter_runs, read_entry
from workbench.store.reader import open_run
from workbench.store.schema import RunStatus
from workbench.whatif.times import PassTimes

#: so many steps make a median worth using
_ENOUGH = 3
#: newest runs of the set-up that are opened
_MOST_RUNS = 12
_LOOKED_AT = 200
_TIMES = (*(f"{stage}_ns" for stage in StageTimes._fields), "wall_ns")
_REST = ("build", "verify", "commit", "record", "unaccounted")


def same_setup(entry: RunEntry, other: RunEntry) -> bool:
    """Whether pass times of the two can be put together."""
    names = ("target", "dtype", "device", "cache", "threads")
    drafts = {_drafts_of(entry), _drafts_of(other)} - {()}
    return (
        entry.mode == other.mode
        and len(drafts) <= 1
        and all(entry.spec.get(name) == other.spec.get(name) for name in names)
    )


def _drafts_of(entry: RunEntry) -> tuple[str, ...]:
    """The draft models: several that are merged take other times than the first alone."""
    draft = entry.spec.get("draft")
    return (draft, *(entry.spec.get("other_drafts") or ())) if draft else ()


def measure(run_id: str, *, draft: str | None = None, folder: Path | None = None) -> PassTimes:
    """Pass times from the run and from other stored runs of its set-up.

    `draft` names the draft model where the run itself had none.
    """
    entry = read_entry(run_id, folder)
    if entry is None:
        return PassTimes()
    if entry.spec.get("draft") is None and draft is not None:
        entry.spec["draft"] = draft
    others = [
        other
        for _, other in zip(range(_LOOKED_AT), iter_runs(folder), strict=False)
        if other.run_id != run_id
        and other.status in (RunStatus.FINISHED, RunStatus.CANCELLED)
        and not other.method.startswith("hf-")
        and same_setup(entry, other)
    ]
    return from_runs([entry, *others[: _MOST_RUNS - 1]], folder)


def from_runs(entries: Iterable[RunEntry], folder: Path | None = None) -> PassTimes:
    """Pass times of these runs together, at the pace of the first.

    A machine is not equally fast at all times: each run's times are taken in plain steps, as
    measured right before it.
    """
    steps: list[pd.DataFrame] = []
    plain_ns: list[int] = []
    for entry in entries:
        try:
            with open_run(entry.run_id, folder) as run:
                found = run.steps().query("batch == 1").assign(run=run.run_id)
                found = found.assign(rows=_rows_run(run.nodes(), found))
                pace = run.info.plain_step_ns
        except UserError:
            continue  # under way, or damaged: the others will do
        if not pace:
            continue
        plain_ns.append(pace)
        if len(found):
            scaled = {name: found[name] * (plain_ns[0] / pace) for name in _TIMES}
            steps.append(found.assign(plain=entry.method == "autoregressive", **scaled))
    if not steps:
        return fit(pd.DataFrame(), plain_ns[:1])
    return fit(pd.concat(steps, ignore_index=True), plain_ns[:1], own=str(steps[0]["run"].iloc[0]))


def _rows_run(nodes: pd.DataFrame, steps: pd.DataFrame) -> np.ndarray:
    """For each step, how many nodes had children: those the draft model ran."""
    keys = ["repeat", "request", "step"]
    parents = nodes[nodes["node"] > 0].groupby(keys)["parent"].nunique()
    index = pd.MultiIndex.from_frame(steps[keys])
    return parents.reindex(index, fill_value=0).to_numpy(int)


def fit(steps: pd.DataFrame, plain_ns: list[int], *, own: str = "") -> PassTimes:
    """Pass times from steps (columns of the store, `rows`, `plain` and `run`).

    They are scaled to what run `own` took, as what is predicted stands beside it.
    """
    times = PassTimes(plain=float(np.median(plain_ns)) / 1e6 if plain_ns else 0.0)
    if steps.empty:
        return times
    times.num_runs = steps["run"].nunique()
    scored = frames.score_time(steps.assign(arm=""))
    scored = scored[(scored["steps"] >= _ENOUGH)]
    times.score = dict(zip(scored["nodes"].tolist(), scored["ms"].tolist(), strict=True))
    if times.plain:
        times.score.setdefault(1, times.plain)
    plain = steps[steps["plain"]]
    if len(plain) >= _ENOUGH:
        times.plain = float(plain["wall_ns"].median()) / 1e6
        times.plain_from = str(plain["run"].iloc[0])
    drafting = steps[steps["num_drafted"] > 0]
    if len(drafting) < _ENOUGH:
        return times
    rest = drafting[[f"{stage}_ns" for stage in _REST]].sum(axis=1)
    times.rest = float(rest.median()) / 1e6
    grouped = drafting.groupby(["draft_passes", "rows"])["draft_ns"].agg(["median", "size"])
    _fit_draft(times, grouped.reset_index())
    mine = drafting[drafting["run"] == own]
    if len(mine) >= _ENOUGH and times.known:
        _scale(times, mine)
    return times


def _scale(times: PassTimes, steps: pd.DataFrame) -> None:
    shapes = zip(steps["num_drafted"], steps["draft_passes"], steps["rows"], strict=True)
    predicted = sum(
        times.score_ms(int(nodes) + 1).ms + times.draft_ms(int(passes), int(rows)).ms + times.rest
        for nodes, passes, rows in shapes
    )
    factor = float(steps["wall_ns"].sum()) / 1e6 / predicted
    times.scale = factor
    times.score = {nodes: ms * factor for nodes, ms in times.score.items()}
    times.draft = {shape: ms * factor for shape, ms in times.draft.items()}
    for name in ("per_pass", "per_row", "rest", "plain"):
        setattr(times, name, getattr(times, name) * factor)


def _fit_draft(times: PassTimes, grouped: pd.DataFrame) -> None:
    from scipy.optimize import nnls

    known = grouped[grouped["size"] >= _ENOUGH]
    passes, rows = known["draft_passes"].to_numpy(int), known["rows"].to_numpy(int)
    ms = known["median"].to_numpy(float) / 1e6
    times.draft = {
        (int(p), int(r)): float(t) for p, r, t in zip(passes, rows, ms, strict=True) if p
    }
    if not times.draft:
        return
    weight = np.sqrt(known["size"].to_numpy(float))
    columns = np.stack([passes, rows], 1).astype(float)
    if np.linalg.matrix_rank(columns) < 2:  # one shape alone: passes are all that can be told
        columns[:, 1] = 0.0
    (times.per_pass, times.per_row), _ = nnls(columns * weight[:, None], ms * weight)
