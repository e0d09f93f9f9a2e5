"""Load metrics, as docs/measuring.md and docs/load.md define them, from rows of any origin.

A stored run, a run under way and a simulated one leave the same rows (`engine.serving.trace`); all
figures are computed from these, here. Frames have the store's columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from engine.serving.trace import ArrivalRow, Tick
from workbench.loading import definitions as of
from workbench.store.reader import RunReader
from workbench.store.schema import TABLES

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


@dataclass(frozen=True, slots=True)
class LoadMetrics:
    """Figures of a load run. What cannot be known is None."""

    requests: int
    completed: int  # ended by themselves: EOS, a stop string, their length
    refused: int
    cancelled: int
    timed_out: int
    lost: int
    unended: int  # the run ended first
    duration_s: float  # first arrival to last end
    output_tokens: int  # kept tokens of all requests, also of those that were given up
    output_throughput: float  # these, per second
    request_throughput: float  # completed requests per second
    request_goodput: float | None  # of them, those within every bound of `slo`; per second
    slo: dict[str, float]  # milliseconds
    within_slo: float | None  # share of all requests
    deadlines_met: float | None  # share of requests with a deadline that completed before it
    latencies: dict[str, Latency]
    ticks: int
    tokens_per_step: float  # kept tokens per request and step
    nodes_per_step: float  # drafted nodes per request and step
    mean_active: float  # requests under way, averaged over time
    slots_used: float | None  # the same as a share of the slots
    mean_waiting: float
    most_waiting: int
    lanes: dict[str, float]  # shares of the time: target, draft, prefill, other, idle
    fairness: float | None  # Jain's index over clients
    clients: list[ByClient] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def metrics_from_json(stored: Mapping[str, Any]) -> LoadMetrics:
    """The way back from `LoadMetrics.as_json`."""
    latencies = {name: Latency(**one) for name, one in stored["latencies"].items()}
    clients = [ByClient(**one) for one in stored["clients"]]
    return LoadMetrics(**{**stored, "latencies": latencies, "clients": clients})


def of_rows(
    arrivals: Iterable[ArrivalRow],
    ticks: Iterable[Tick],
    *,
    slo: Mapping[str, float] | None = None,
    slots: int | None = None,
) -> LoadMetrics:
    """The figures of rows as a scheduler tells them; of a request's rows the last one counts."""
    return load_metrics(*frames(arrivals, ticks), slo=slo, slots=slots)


def of_run(run: RunReader) -> LoadMetrics | None:
    """The figures of a stored run, None where it served no requests as they come."""
    from workbench.loading.spec import LoadSpec
    from workbench.store import serving

    if not serving.serves(run):
        return None
    spec = run.info.spec
    asked = spec if isinstance(spec, LoadSpec) else None
    return load_metrics(
        serving.arrivals(run),
        serving.ticks(run),
        serving.shares(run),
        slo={str(name): limit for name, limit in asked.slo.items()} if asked else None,
        slots=asked.all_slots if asked else None,
    )


def frames(
    arrivals: Iterable[ArrivalRow], ticks: Iterable[Tick]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows as frames: arrivals, ticks, shares."""
    last = {row.request: row for row in arrivals}
    ticks = list(ticks)
    names = {table: [c for c in TABLES[table] if c != "run"] for table in ("tick", "share")}
    shares = [(t.row.tick, t.row.replica, *share) for t in ticks for share in t.shares]
    return (
        pd.DataFrame(list(last.values()), columns=list(ArrivalRow._fields)),
        pd.DataFrame([tick.row for tick in ticks], columns=names["tick"]),
        pd.DataFrame(shares, columns=names["share"]),
    )


def load_metrics(
    arrivals: pd.DataFrame,
    ticks: pd.DataFrame,
    shares: pd.DataFrame,
    *,
    slo: Mapping[str, float] | None = None,
    slots: int | None = None,
) -> LoadMetrics:
    """All figures. `slots` counts those of all pairs and replicas; `slo` bounds in milliseconds."""
    slo = dict(slo or {})
    rows = _numbers(arrivals)
    reason = rows["reason"].fillna("")
    completed = rows[reason.isin(of.COMPLETED)]
    begin, end = span_ns(rows, ticks)
    seconds = (end - begin) / _S
    good = _within(completed, slo) if slo else None
    kept = int(rows["num_kept"].sum())
    step_shares = max(1, len(shares))
    mean_active = _mean_over_time(ticks, ticks["active"], end - begin)
    clients = by_client(rows)
    return LoadMetrics(
        requests=len(rows),
        completed=len(completed),
        refused=int((reason == of.REFUSED).sum()),
        cancelled=int((reason == of.CANCELLED).sum()),
        timed_out=int((reason == of.TIMED_OUT).sum()),
        lost=int((reason == of.LOST).sum()),
        unended=int((reason == "").sum()),
        duration_s=seconds,
        output_tokens=kept,
        output_throughput=_per(kept, seconds),
        request_throughput=_per(len(completed), seconds),
        request_goodput=None if good is None else _per(int(good.sum()), seconds),
        slo=slo,
        within_slo=None if good is None or rows.empty else float(good.sum() / len(rows)),
        deadlines_met=_deadlines_met(rows, completed),
        latencies=latencies(rows, ticks, shares),
        ticks=len(ticks),
        tokens_per_step=float(shares["kept"].sum()) / step_shares,
        nodes_per_step=float(shares["nodes"].sum()) / step_shares,
        mean_active=mean_active,
        slots_used=mean_active / slots if slots else None,
        mean_waiting=waiting_over_time(rows, begin, end),
        most_waiting=most_waiting(rows),
        lanes=lane_shares(rows, ticks, end - begin),
        fairness=of.jain([one.tokens_per_second for one in clients]),
        clients=clients,
    )


def span_ns(arrivals: pd.DataFrame, ticks: pd.DataFrame) -> tuple[float, float]:
    """From the first arrival to the last end of a request or step."""
    if arrivals.empty:
        return 0.0, 0.0
    begin = float(arrivals["arrival_ns"].min())
    ends = [arrivals["ended_ns"].max(), ticks["end_ns"].max() if len(ticks) else np.nan, begin]
    return begin, float(np.nanmax(np.asarray(ends, float)))


def latencies(
    arrivals: pd.DataFrame, ticks: pd.DataFrame, shares: pd.DataFrame
) -> dict[str, Latency]:
    """Every latency of `definitions.LATENCIES` that some request has.

    `queue` is of those that were admitted, `ttft` of those that had a token, `tpot` and `e2el` of
    those that completed: a request that was given up has no end to wait for.
    """
    rows = _numbers(arrivals)
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
    rows = _numbers(arrivals)
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
                tokens_per_second=_per(float(own["num_kept"].sum()), waited),
                ttft_ms=_median_ms(of.ttft_ns(own)),
                e2el_ms=_median_ms(of.e2el_ns(done)),
            )
        )
    return sorted(found, key=lambda one: (len(one.client), one.client))


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


# --- inside -------------------------------------------------------------------------------


def _numbers(arrivals: pd.DataFrame) -> pd.DataFrame:
    """The frame with times as floats: None, which a frame of rows may hold, becomes NaN."""
    times = {n: arrivals[n].astype(float) for n in arrivals.columns if n.endswith("_ns")}
    return arrivals.assign(**times)


def _within(completed: pd.DataFrame, slo: Mapping[str, float]) -> pd.Series:
    """Which completed requests keep to every bound. One of a single token has no tpot to bound."""
    good = pd.Series(True, index=completed.index)
    for name, limit in slo.items():
        if name == "ttft":
            good &= of.ttft_ns(completed) <= limit * _MS
        elif name == "e2el":
            good &= of.e2el_ns(completed) <= limit * _MS
        else:
            assert name == "tpot", name
            several = completed["num_kept"] > 1
            slow = of.tpot_ns(completed[several]) > limit * _MS
            good &= ~slow.reindex(completed.index, fill_value=False)
    return good


def _deadlines_met(rows: pd.DataFrame, completed: pd.DataFrame) -> float | None:
    wanted = int(rows["deadline_ns"].notna().sum())
    if not wanted:
        return None
    return float((completed["ended_ns"] <= completed["deadline_ns"]).sum()) / wanted


def _latency(values_ns: np.ndarray) -> Latency | None:
    known = values_ns[~np.isnan(values_ns)] / _MS
    if not len(known):
        return None
    median, p90, p99 = (float(value) for value in np.percentile(known, (50, 90, 99)))
    return Latency(len(known), float(known.mean()), median, p90, p99)


def _mean_over_time(ticks: pd.DataFrame, values: pd.Series, span: float) -> float:
    if span <= 0:
        return 0.0
    return float((values * (ticks["end_ns"] - ticks["begin_ns"])).sum() / span)


def _median_ms(values_ns: pd.Series) -> float | None:
    known = values_ns.dropna()
    return float(known.median()) / _MS if len(known) else None


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0
