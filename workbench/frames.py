"""Stored runs and rows as data frames for figures. No SQL and no Plotly here.

An *arm* column names the line or bar a row belongs to. Figures take these frames alone, so pages
and reports draw the same thing from the same numbers. Nodes and lengths are of the first repeat:
the others decode the same tokens again and would only inflate counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench import metrics
from workbench.comparing.rows import Row
from workbench.events import RunSummary
from workbench.store.reader import open_run

_TESTED = ("accepted", "rejected")


@dataclass(slots=True)
class RunFrames:
    """Steps and drafted nodes of several runs, with the columns of the store and `arm`."""

    steps: pd.DataFrame
    nodes: pd.DataFrame


def load_frames(runs: Mapping[str, str], folder: Path | None = None) -> RunFrames:
    """Frames of stored runs, given as run id -> arm. Raises UserError where one is not there."""
    steps, nodes = [], []
    for run_id, arm in runs.items():
        with open_run(run_id, folder) as run:
            steps.append(run.steps().assign(arm=arm))
            nodes.append(run.nodes(repeat=0).query("node > 0").assign(arm=arm))
    return RunFrames(
        pd.concat(steps, ignore_index=True) if steps else pd.DataFrame(),
        pd.concat(nodes, ignore_index=True) if nodes else pd.DataFrame(),
    )


def rows_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """One line per row of a comparison, flat; `nodes` is the mean size of a tree with its root."""
    return pd.DataFrame(
        [
            {
                "arm": row.method,
                "workload": row.workload,
                "dtype": row.dtype,
                "cache": row.cache,
                "execution": row.execution,
                "speedup": row.speedup.value,
                "low": row.speedup.low,
                "high": row.speedup.high,
                "tokens_per_second": row.tokens_per_second,
                "tokens_per_step": row.tokens_per_step,
                "acceptance_rate": row.acceptance_rate,
                "repetition": row.repetition,
                "nodes": row.nodes_per_step,
                "step_ms": row.step_ms,
                "drafts": row.drafts,
                "finding": str(row.finding),
            }
            for row in rows
        ]
    )


def summaries_frame(summaries: Mapping[str, RunSummary]) -> pd.DataFrame:
    """One line per run, with those columns of `rows_frame` that need no baseline."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "workload": "",
                "tokens_per_second": summary.tokens_per_second,
                "tokens_per_step": summary.tokens_per_step,
                "acceptance_rate": summary.acceptance_rate,
                "repetition": summary.repetition,
                "drafts": summary.drafted > 0,
            }
            for arm, summary in summaries.items()
        ]
    )


def ordered(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The frame with its arms in this order, those included that it does not hold.

    Figures style arms by it: give all frames of a page or report the same `arms`.
    """
    kind = pd.CategoricalDtype(list(dict.fromkeys(arms)), ordered=True)
    return frame.assign(arm=frame["arm"].astype(kind))


def merge(summaries: Iterable[RunSummary]) -> RunSummary:
    """Several runs as one: an arm on all its workloads."""
    merged = RunSummary()
    for summary in summaries:
        weighted = merged.repetition * merged.ngrams + summary.repetition * summary.ngrams
        for known in fields(RunSummary):
            one, other = getattr(merged, known.name), getattr(summary, known.name)
            added: Any
            if isinstance(one, dict):
                added = {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
            elif isinstance(one, list):
                added = [a + b for a, b in zip_longest(one, other, fillvalue=0)]
            else:
                added = one + other
            setattr(merged, known.name, added)
        merged.repetition = metrics.ratio(weighted, merged.ngrams)
    return merged


def accepted_histogram(summaries: Mapping[str, RunSummary]) -> pd.DataFrame:
    """Columns arm, accepted, steps, share: how many steps accepted 0, 1, 2, ... nodes."""
    found = []
    for arm, summary in summaries.items():
        total = sum(summary.histogram)
        for accepted, steps in enumerate(summary.histogram):
            found.append((arm, accepted, steps, metrics.ratio(steps, total)))
    return pd.DataFrame(found, columns=["arm", "accepted", "steps", "share"])


def acceptance_by(summaries: Mapping[str, RunSummary], what: str) -> pd.DataFrame:
    """Columns arm, `what` ("depth" from 1, or "rank" from 0), tested, share (conditional)."""
    found = []
    for arm, summary in summaries.items():
        if what == "depth":
            shares, tested = metrics.acceptance_by_depth(summary), summary.tested_at_depth[1:]
        else:
            shares, tested = metrics.acceptance_by_rank(summary), summary.tested_at_rank
        first = 1 if what == "depth" else 0
        for at, (share, count) in enumerate(zip(shares, tested, strict=True), first):
            if count:
                found.append((arm, at, count, share))
    return pd.DataFrame(found, columns=["arm", what, "tested", "share"])


def reliability(nodes: pd.DataFrame, *, bins: int = 10) -> pd.DataFrame:
    """Columns arm, probability (mean in its bin), share, count, low, high (Wilson, 95%).

    Of tested nodes only: the draft's probability of a token given its path, against how often the
    target agreed.
    """
    columns = ["arm", "probability", "share", "count", "low", "high"]
    if nodes.empty:
        return pd.DataFrame(columns=columns)
    tested = nodes[nodes["fate"].isin(_TESTED) & nodes["draft_logprob"].notna()]
    probability = np.exp(tested["draft_logprob"].to_numpy(float)).clip(0.0, 1.0)
    tested = tested.assign(
        probability=probability,
        bin=np.minimum((probability * bins).astype(int), bins - 1),
        accepted=(tested["fate"] == "accepted").astype(float),
    )
    found = tested.groupby(["arm", "bin"], sort=True, observed=True).agg(
        probability=("probability", "mean"), share=("accepted", "mean"), count=("accepted", "size")
    )
    found = found.reset_index()
    found["low"], found["high"] = wilson(found["share"].to_numpy(), found["count"].to_numpy())
    return found[columns]


def wilson(
    share: np.ndarray, count: np.ndarray, *, z: float = 1.96
) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of a share among `count` (Wilson 1927): sound for few, and near 0 and 1."""
    share, count = np.asarray(share, float), np.asarray(count, float)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def score_time(steps: pd.DataFrame) -> pd.DataFrame:
    """Columns arm, nodes (with the root), ms (median), low, high (quartiles), steps."""
    columns = ["arm", "nodes", "ms", "low", "high", "steps"]
    if steps.empty:
        return pd.DataFrame(columns=columns)
    timed = steps.assign(nodes=steps["num_drafted"] + 1, ms=steps["score_ns"] / 1e6)
    grouped = timed.groupby(["arm", "nodes"], sort=True, observed=True)["ms"]
    found = pd.DataFrame(
        {
            "low": grouped.quantile(0.25),
            "ms": grouped.median(),
            "high": grouped.quantile(0.75),
            "steps": grouped.size(),
        }
    )
    return found.reset_index()[columns]


def speed_by_context(steps: pd.DataFrame, *, bins: int | None = None) -> pd.DataFrame:
    """Columns arm, position (middle of its bin), tokens_per_second, steps.

    `position` counts the prompt: it is the length of what attention looks at.
    """
    columns = ["arm", "position", "tokens_per_second", "steps"]
    if steps.empty:
        return pd.DataFrame(columns=columns)
    position = steps["position"].to_numpy(float)
    edges = np.linspace(position.min(), position.max() + 1, (bins or _bins(steps)) + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    placed = steps.assign(position=middle[np.digitize(position, edges[1:-1])])
    return _speed(placed, "position")[columns]


def speed_over_time(steps: pd.DataFrame, *, bins: int | None = None) -> pd.DataFrame:
    """Columns arm, share (of a request's time), tokens_per_second, steps.

    Requests of different length lie over each other: 0 is the end of prefill, 1 the last token.
    """
    columns = ["arm", "share", "tokens_per_second", "steps"]
    if steps.empty:
        return pd.DataFrame(columns=columns)
    ordered = steps.sort_values(["arm", "repeat", "request", "step"], kind="stable")
    grouped = ordered.groupby(["arm", "repeat", "request"], observed=True)["wall_ns"]
    middle = (grouped.cumsum() - ordered["wall_ns"] / 2) / grouped.transform("sum")
    bins = bins or _bins(steps)
    share = (np.minimum((middle * bins).astype(int), bins - 1) + 0.5) / bins
    return _speed(ordered.assign(share=share), "share")[columns]


def _bins(steps: pd.DataFrame) -> int:
    """So many that a bin holds some twenty steps of the arm that has fewest."""
    fewest = int(steps.groupby("arm", observed=True).size().min())
    return int(np.clip(fewest // 20, 4, 24))


def _speed(steps: pd.DataFrame, by: str) -> pd.DataFrame:
    """Kept tokens by wall time in each bin: a ratio of sums, not a mean of ratios."""
    found = steps.groupby(["arm", by], sort=True, observed=True).agg(
        kept=("num_kept", "sum"), wall_ns=("wall_ns", "sum"), steps=("wall_ns", "size")
    )
    found = found.reset_index()
    return found.assign(
        tokens_per_second=[
            metrics.tokens_per_second(kept, wall)
            for kept, wall in zip(found["kept"], found["wall_ns"], strict=True)
        ]
    )


def stage_times(summaries: Mapping[str, RunSummary]) -> pd.DataFrame:
    """Columns arm, stage, ms (of a mean step), share. Stages in the order of a step."""
    found = []
    for arm, summary in summaries.items():
        shares = metrics.stage_shares(summary)
        for stage in metrics.STAGES:
            per_step = metrics.ratio(summary.stages_ns.get(stage, 0), summary.passes) / 1e6
            found.append((arm, stage, per_step, shares[stage]))
    return pd.DataFrame(found, columns=["arm", "stage", "ms", "share"])


def waterfalls(rows: Sequence[Row]) -> pd.DataFrame:
    """Columns arm, ideal, scored, drafted, measured: speedups as each cost is counted in."""
    found = [(row.method, *row.waterfall) for row in rows if row.drafts and row.waterfall]
    return pd.DataFrame(found, columns=["arm", "ideal", "scored", "drafted", "measured"])
