"""Series for the charts of a load run: over time, laws of latencies, trees against load."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.loading.over_time import over_time
from workbench.view.requests import Served
from workbench.view.requests_latency import FIGURES, latencies

#: parts of the time that throughput is told by, at most, and steps that each should hold
_BINS, _STEPS = 60, 5
#: most points of a line
_POINTS = 4_000


def load_over_time(served: Served) -> pd.DataFrame:
    """`second`, `waiting` and `active` from each change on: requests in the queue, in the batch."""
    rows = served.history.arrivals
    came, begun, ended = (
        rows[f"{name}_ns"].to_numpy(float) for name in ("arrival", "admitted", "ended")
    )
    left = np.where(np.isnan(begun), ended, begun)
    in_batch = np.where(np.isnan(begun), np.nan, ended)
    changes = [(came, 1, 0), (left, -1, 0), (begun, 0, 1), (in_batch, 0, -1)]
    parts = [
        pd.DataFrame({"ns": times[~np.isnan(times)]}).assign(waiting=queue, active=batch)
        for times, queue, batch in changes
    ]
    frame = pd.concat(parts).groupby("ns", sort=True).sum().cumsum().reset_index()
    frame["second"] = (frame.pop("ns") - came.min()) / 1e9 if len(came) else []
    return frame.iloc[:: max(1, -(-len(frame) // _POINTS))].reset_index(drop=True)


def throughput(served: Served) -> pd.DataFrame:
    """`second` and `tokens_per_second` of equal parts of the time, wide enough to hold steps."""
    history = served.history
    bins = min(_BINS, max(4, len(history.ticks) // _STEPS))
    return over_time(history.arrivals, history.ticks, history.shares, bins=bins)


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
