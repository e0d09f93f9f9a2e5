"""Series for the charts of a load run: the laws of its latencies, and trees against load."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.loading.metrics import over_time
from workbench.view.requests import Served
from workbench.view.requests_latency import FIGURES, latencies

#: columns of series over time
_BINS = 120


def load_over_time(served: Served) -> pd.DataFrame:
    """`second`, `waiting`, `active`, `nodes` and `tokens_per_second`, averaged over equal parts."""
    history = served.history
    return over_time(history.arrivals, history.ticks, history.shares, bins=_BINS)


def latency_law(served: Served) -> pd.DataFrame:
    """`figure`, `ms`, `share`: percent of the requests with this latency that took at most `ms`."""
    found = latencies(served.history.arrivals)
    parts = []
    for name in FIGURES:
        ms = np.sort(found[name].dropna().to_numpy())
        share = 100 * (np.arange(len(ms)) + 1) / max(1, len(ms))
        parts.append(pd.DataFrame({"figure": name, "ms": ms, "share": share}))
    return pd.concat(parts, ignore_index=True)


def nodes_by_load(served: Served) -> pd.DataFrame:
    """By requests in the batch: mean and quartiles of `nodes` per request, `steps` behind them.

    `brought` is the mean of tokens kept per request and step.
    """
    ticks = served.history.ticks
    by_tick = served.history.shares.groupby(["tick", "replica"])["kept"].sum()
    places = pd.MultiIndex.from_frame(ticks[["tick", "replica"]])
    kept = by_tick.reindex(places).to_numpy(float)
    sizes = ticks["active"].clip(lower=1).to_numpy(float)
    each = pd.DataFrame(
        {
            "active": ticks["active"].to_numpy(int),
            "nodes": ticks["nodes"].to_numpy(float) / sizes,
            "brought": kept / sizes,
        }
    )
    grouped = each.groupby("active")
    return pd.DataFrame(
        {
            "nodes": grouped["nodes"].mean(),
            "low": grouped["nodes"].quantile(0.25),
            "high": grouped["nodes"].quantile(0.75),
            "brought": grouped["brought"].mean(),
            "steps": grouped.size(),
        }
    ).reset_index()
