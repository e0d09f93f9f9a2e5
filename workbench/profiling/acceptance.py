"""Acceptance of a pair's drafts, counted from the node tables of its stored runs.

Only children that the draft model itself chose without drawing, verified by sample-and-match or
greedily: other rules accept for other reasons, and a lossy one accepts more than it should.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pandas as pd

from engine.calibration import Calibration, kind_of
from engine.costs import StoppedError
from engine.errors import UserError
from engine.registry import METHODS, method_names
from engine.tree import Children
from workbench.loading.spec import LoadSpec, stored_spec
from workbench.spec import RunSpec
from workbench.store.index import RunEntry, iter_runs
from workbench.store.reader import RunReader, open_run
from workbench.store.schema import RunStatus

#: newest runs that are opened
MOST_RUNS = 200

_CHILDREN = """
SELECT "rank", draft_logprob, fate = 'accepted' AS accepted
FROM node JOIN step USING (request, "repeat", step)
WHERE node > 0 AND fate IN ('accepted', 'rejected') AND source IN ('draft', 'ngram')
  AND draft_logprob IS NOT NULL AND children = ?
"""
_PARENTS = """
SELECT any_value(parent.draft_logprob) AS draft_logprob, any_value(parent.node) AS node,
       bool_or(child.fate = 'accepted') AS continued
FROM node AS child
JOIN node AS parent ON parent.request = child.request AND parent."repeat" = child."repeat"
  AND parent.step = child.step AND parent.node = child.parent
JOIN step ON step.request = child.request AND step."repeat" = child."repeat"
  AND step.step = child.step
WHERE child.fate IN ('accepted', 'rejected') AND child.source IN ('draft', 'ngram')
  AND child.draft_logprob IS NOT NULL AND step.children = ?
GROUP BY child.request, child."repeat", child.step, child.parent
"""


class Learned(NamedTuple):
    """Counts and the number of runs behind them, by kind (`engine.calibration.kind_of`)."""

    calibrations: dict[str, Calibration]
    runs: dict[str, int]


def learn(
    target_hash: str,
    draft_hash: str,
    *,
    folder: Path | None = None,
    on_progress: Callable[[int], None] = lambda looked_at: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Learned:
    """Count the stored runs of a pair, known by its content hashes whatever it was called.

    Raises StoppedError when asked to stop.
    """
    found = Learned({}, {})
    counted = 0
    for number, entry in enumerate(iter_runs(folder)):
        if should_stop():
            raise StoppedError
        on_progress(number)
        spec = _usable(entry)
        if spec is None:
            continue
        try:
            with open_run(entry.run_id, folder) as run:
                if not _of_pair(run, target_hash, draft_hash):
                    continue
                _count(run, spec, found)
        except (UserError, duckdb.Error):
            continue  # under way, or damaged: the others will do
        counted += 1
        if counted == MOST_RUNS:
            break
    return found


def _usable(entry: RunEntry) -> RunSpec | None:
    """The spec of a run whose children tell something; None of any other."""
    if entry.status is RunStatus.RUNNING:
        return None
    try:
        spec = stored_spec(entry.spec)
    except ValueError:
        return None
    if spec.method not in method_names():
        return None
    method = METHODS[spec.method]
    if not method.needs_draft or not method.same_vocabulary:
        return None
    if spec.other_drafts:  # which of them chose a child is another question
        return None
    if isinstance(spec, LoadSpec) and spec.pairs:  # nodes of several pairs in one table
        return None
    return spec if spec.temperature == 0.0 or spec.verify == "match" else None


def _of_pair(run: RunReader, target_hash: str, draft_hash: str) -> bool:
    models = run.info.environment.get("models", {})
    hashes = [models.get(role, {}).get("content_hash") for role in ("target", "draft")]
    return hashes == [target_hash, draft_hash]


def _count(run: RunReader, spec: RunSpec, found: Learned) -> None:
    greedy = spec.temperature == 0.0
    for children in (Children.FIXED, Children.COUPLED):
        rows = run.query(_CHILDREN, [children.value])
        if rows.empty:
            continue
        parents = run.query(_PARENTS, [children.value])
        kind = kind_of(children, greedy=greedy)
        counts = found.calibrations.setdefault(kind, Calibration())
        counts.add(
            rows["rank"].to_numpy(int),
            rows["draft_logprob"].to_numpy(float),
            rows["accepted"].to_numpy(bool),
        )
        counts.add_parents(_own_logprob(parents), parents["continued"].to_numpy(bool))
        found.runs[kind] = found.runs.get(kind, 0) + 1


def _own_logprob(parents: pd.DataFrame) -> np.ndarray:
    """NaN at a root, which has no probability of its own."""
    return parents["draft_logprob"].astype(float).where(parents["node"] > 0).to_numpy(float)
