"""Latencies of each request, and their percentiles as they stood at each moment of a run.

What each of them is stands in `workbench.loading.definitions`.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

import numpy as np
import pandas as pd

from workbench.loading import definitions as of

QUANTILES = (0.5, 0.9, 0.99)
FIGURES = ("queue", "ttft", "tpot", "e2el")
#: moments at which percentiles are told; of more values evenly spread ones
_MOST = 1_000
_MS = 1e6


def latencies(arrivals: pd.DataFrame) -> pd.DataFrame:
    """`queue`, `ttft`, `tpot` and `e2el` of each request in milliseconds, NaN where it has none.

    As the metrics of a load run take them: `tpot` and `e2el` only of requests that completed.
    """
    rows = _numbers(arrivals)
    done = rows["reason"].isin(of.COMPLETED)
    several = done & (rows["num_kept"] > 1)
    return pd.DataFrame(
        {
            "queue": of.queue_ns(rows) / _MS,
            "ttft": of.ttft_ns(rows) / _MS,
            "tpot": of.tpot_ns(rows[several]).reindex(rows.index) / _MS,
            "e2el": of.e2el_ns(rows[done]).reindex(rows.index) / _MS,
        }
    )


def running_percentiles(arrivals: pd.DataFrame) -> dict[str, dict[str, list[Any]]]:
    """By latency: `at`, microseconds at which a request's became known; `count`, those known by
    then; `ms`, the percentiles of QUANTILES over them.
    """
    rows, found = _numbers(arrivals), latencies(arrivals)
    known = {
        "queue": rows["admitted_ns"],
        "ttft": rows["first_token_ns"],
        "tpot": rows["ended_ns"],
        "e2el": rows["ended_ns"],
    }
    return {
        name: _running(known[name].to_numpy(float), found[name].to_numpy(float)) for name in FIGURES
    }


def _running(at_ns: np.ndarray, ms: np.ndarray) -> dict[str, list[Any]]:
    order = [place for place in np.argsort(at_ns, kind="stable") if not np.isnan(ms[place])]
    told = set(np.linspace(0, len(order) - 1, min(_MOST, len(order))).round().astype(int).tolist())
    answer: dict[str, list[Any]] = {"at": [], "count": [], "ms": []}
    sofar: list[float] = []
    for count, place in enumerate(order):
        insort(sofar, float(ms[place]))
        if count in told:
            answer["at"].append(round(at_ns[place] / 1e3))
            answer["count"].append(count + 1)
            answer["ms"].append([_quantile(sofar, q) for q in QUANTILES])
    return answer


def _quantile(ascending: list[float], q: float) -> float:
    """Linear between neighbours, as `numpy.percentile` does it."""
    place = q * (len(ascending) - 1)
    low = int(place)
    high = min(low + 1, len(ascending) - 1)
    return round(ascending[low] + (place - low) * (ascending[high] - ascending[low]), 3)


def _numbers(arrivals: pd.DataFrame) -> pd.DataFrame:
    times = {n: arrivals[n].astype(float) for n in arrivals.columns if n.endswith("_ns")}
    return arrivals.assign(**times)
