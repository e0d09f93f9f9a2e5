"""Live estimates held against what a paired comparison then measured, as data frames.

The estimate (tau * t_plain / t_step, `metrics.live_speedup`) is what a run shows while it goes on:
it knows one plain step, timed before the run. How far it lies off is worth a chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from workbench import metrics
from workbench.comparing.rows import Row
from workbench.events import RunSummary

_COSTS = ["arm", "ideal", "scored", "drafted", "measured"]


def predictions(
    rows: Iterable[Row],
    summaries: Mapping[str, RunSummary],
    plain_step_ns: Mapping[str, int | None],
) -> pd.DataFrame:
    """Columns arm, workload, predicted, measured, low, high, of the rows that drafted.

    `summaries` and `plain_step_ns` are given by run id. Rows without an estimate are left out.
    """
    found = []
    for row in rows:
        if not row.drafts or row.run_id not in summaries:
            continue
        estimate = metrics.live_speedup(summaries[row.run_id], plain_step_ns.get(row.run_id))
        if estimate is not None:
            bounds = (row.speedup.value, row.speedup.low, row.speedup.high)
            found.append((row.method, row.workload, estimate, *bounds))
    columns = ["arm", "workload", "predicted", "measured", "low", "high"]
    return pd.DataFrame(found, columns=columns)


def estimated_waterfalls(
    summaries: Mapping[str, RunSummary], plain_step_ns: Mapping[str, int | None]
) -> pd.DataFrame:
    """Columns of `frames.waterfalls`, by arm, where "measured" is the live estimate."""
    found = []
    for arm, summary in summaries.items():
        plain = plain_step_ns.get(arm)
        if plain and summary.drafted and summary.stages_ns.get("score"):
            found.append((arm, *metrics.waterfall(summary, plain)))
    return pd.DataFrame(found, columns=_COSTS)
