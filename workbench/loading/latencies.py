"""How long requests waited for what, and what each client had: figures by request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.loading import definitions as of

_MS = 1e6
_S = 1e9


@dataclass(frozen=True, slots=True)
class Latency:
    """A latency over all requests that have it (of `itl`: over all chunks), in milliseconds."""

    count: int
    mean: float
    median: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class ByClient:
    """What a client had."""

    client: str
    requests: int
    completed: int
    refused: int
    tokens: int
    tokens_per_second: float  # kept / seconds from arrival to end, over its requests
    ttft_ms: float | None  # median
    e2el_ms: float | None  # median of its completed requests


def latencies(
    arrivals: pd.DataFrame, ticks: pd.DataFrame, shares: pd.DataFrame
) -> dict[str, Latency]:
    """Every latency of `definitions.LATENCIES` that some request has.

    `queue` is of those that were admitted, `ttft` of those that had a token, `tpot` and `e2el` of
    those that completed: a request that was given up has no end to wait for.
    """
    rows = numbers(arrivals)
    done = rows[rows["reason"].isin(of.COMPLETED)]
    taken = {
        "queue": of.queue_ns(rows),
        "ttft": of.ttft_ns(rows),
        "tpot": of.tpot_ns(done[done["num_kept"] > 1]),
        "itl": chunk_gaps_ns(ticks, shares),
        "e2el": of.e2el_ns(done),
    }
    found = {name: _latency(np.asarray(values, float)) for name, values in taken.items()}
    return {name: one for name, one in found.items() if one is not None}


def chunk_gaps_ns(ticks: pd.DataFrame, shares: pd.DataFrame) -> np.ndarray:
    """Nanoseconds between the ends of steps that brought a request tokens, over all requests."""
    brought = shares[shares["kept"] > 0].merge(
        ticks[["tick", "replica", "end_ns"]], on=["tick", "replica"]
    )
    ordered = brought.sort_values(["request", "end_ns"], kind="stable")
    gaps = ordered.groupby("request")["end_ns"].diff()
    return gaps.dropna().to_numpy(float)


def by_client(arrivals: pd.DataFrame) -> list[ByClient]:
    """A line for each client, in the order of their names (client-2 before client-10)."""
    rows = numbers(arrivals)
    found = []
    for client, own in rows.groupby("client"):
        done = own[own["reason"].isin(of.COMPLETED)]
        waited = float(of.e2el_ns(own).sum()) / _S
        found.append(
            ByClient(
                client=str(client),
                requests=len(own),
                completed=len(done),
                refused=int((own["reason"] == of.REFUSED).sum()),
                tokens=int(own["num_kept"].sum()),
                tokens_per_second=per(float(own["num_kept"].sum()), waited),
                ttft_ms=_median_ms(of.ttft_ns(own)),
                e2el_ms=_median_ms(of.e2el_ns(done)),
            )
        )
    return sorted(found, key=lambda one: (len(one.client), one.client))


def numbers(arrivals: pd.DataFrame) -> pd.DataFrame:
    """The frame with times as floats: None, which a frame of rows may hold, becomes NaN."""
    times = {n: arrivals[n].astype(float) for n in arrivals.columns if n.endswith("_ns")}
    return arrivals.assign(**times)


def per(amount: float, seconds: float) -> float:
    """A rate; 0 where no time passed."""
    return amount / seconds if seconds > 0 else 0.0


def _latency(values_ns: np.ndarray) -> Latency | None:
    known = values_ns[~np.isnan(values_ns)] / _MS
    if not len(known):
        return None
    median, p90, p99 = (float(value) for value in np.percentile(known, (50, 90, 99)))
    return Latency(len(known), float(known.mean()), median, p90, p99)


def _median_ms(values_ns: pd.Series) -> float | None:
    known = values_ns.dropna()
    return float(known.median()) / _MS if len(known) else None
