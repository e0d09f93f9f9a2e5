"""What a load run did with its time: lanes, the queue, and how figures went on."""

from __future__ import annotations

import numpy as np
import pandas as pd

_S = 1e9


def span_ns(arrivals: pd.DataFrame, ticks: pd.DataFrame) -> tuple[float, float]:
    """From the first arrival to the last end of a request or step."""
    if arrivals.empty:
        return 0.0, 0.0
    begin = float(arrivals["arrival_ns"].min())
    ends = [arrivals["ended_ns"].max(), ticks["end_ns"].max() if len(ticks) else np.nan, begin]
    return begin, float(np.nanmax(np.asarray(ends, float)))


def lane_shares(arrivals: pd.DataFrame, ticks: pd.DataFrame, span: float) -> dict[str, float]:
    """What the time went to, as shares that sum to 1, averaged over replicas.

    `target` scores trees, `draft` drafts, `prefill` reads prompts (with both models), `other` is
    what is left of the steps, `idle` the rest.
    """
    replicas = max(1, ticks["replica"].nunique())
    total = span * replicas
    if total <= 0:
        return {}
    busy = {
        "target": float(ticks["score_ns"].sum()),
        "draft": float(ticks["draft_ns"].sum()),
        "prefill": float((arrivals["prefilled_ns"] - arrivals["admitted_ns"]).sum()),
        "other": float((ticks["verify_ns"] + ticks["commit_ns"] + ticks["rest_ns"]).sum()),
    }
    shares = {name: value / total for name, value in busy.items()}
    return shares | {"idle": max(0.0, 1.0 - sum(shares.values()))}


def waiting_over_time(arrivals: pd.DataFrame, begin: float, end: float) -> float:
    """Mean length of the queue: the time that all requests waited, by the time that passed."""
    if end <= begin:
        return 0.0
    left = arrivals["admitted_ns"].fillna(arrivals["ended_ns"]).fillna(end)
    return float((left - arrivals["arrival_ns"]).sum() / (end - begin))


def most_waiting(arrivals: pd.DataFrame) -> int:
    """The longest that the queue was. A request that begins at once was not in it."""
    left = arrivals["admitted_ns"].fillna(arrivals["ended_ns"]).to_numpy(float)
    came = arrivals["arrival_ns"].to_numpy(float)
    times = np.concatenate([came, left[~np.isnan(left)]])
    changes = np.concatenate([np.ones(len(came)), -np.ones((~np.isnan(left)).sum())])
    order = np.lexsort((changes, times))  # at one moment, who leaves first
    return int(max(np.cumsum(changes[order]).max(initial=0.0), 0.0))


def mean_over_time(ticks: pd.DataFrame, values: pd.Series, span: float) -> float:
    """Mean of what holds for a step, weighted by how long it took, over `span` nanoseconds."""
    if span <= 0:
        return 0.0
    return float((values * (ticks["end_ns"] - ticks["begin_ns"])).sum() / span)


def over_time(
    arrivals: pd.DataFrame, ticks: pd.DataFrame, shares: pd.DataFrame, *, bins: int = 60
) -> pd.DataFrame:
    """Columns second (middle of a bin), waiting, active, nodes, tokens_per_second; means by time.

    `waiting` and `active` are averages over the steps of a bin, weighted by how long they took.
    """
    columns = ["second", "waiting", "active", "nodes", "tokens_per_second"]
    begin, end = span_ns(arrivals, ticks)
    if ticks.empty or end <= begin:
        return pd.DataFrame(columns=columns)
    edges = np.linspace(begin, end, bins + 1)
    place = np.clip(np.searchsorted(edges, ticks["end_ns"], side="left") - 1, 0, bins - 1)
    kept = shares.groupby(["replica", "tick"])["kept"].sum().rename("kept")
    placed = ticks.merge(kept, left_on=["replica", "tick"], right_index=True, how="left")
    took = (placed["end_ns"] - placed["begin_ns"]).to_numpy(float)
    weight = np.bincount(place, took, bins)
    found = {"second": ((edges[:-1] + edges[1:]) / 2 - begin) / _S}
    for name in ("waiting", "active", "nodes"):
        sums = np.bincount(place, took * placed[name].to_numpy(float), bins)
        found[name] = np.divide(sums, weight, out=np.zeros(bins), where=weight > 0)
    kept_sums = np.bincount(place, placed["kept"].fillna(0).to_numpy(float), bins)
    found["tokens_per_second"] = kept_sums / ((edges[1] - edges[0]) / _S)
    return pd.DataFrame(found, columns=columns)
