"""Load metrics, as docs/measuring.md and docs/load.md define them, from rows of any origin.

A stored run, a run under way and a simulated one leave the same rows (`engine.serving.trace`); all
figures are computed from these, here. Frames have the store's columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from engine.serving.trace import ArrivalRow, Tick
from workbench.loading import definitions as of
from workbench.loading.latencies import ByClient, Latency, by_client, latencies, numbers, per
from workbench.loading.over_time import (
    lane_shares,
    mean_over_time,
    most_waiting,
    span_ns,
    waiting_over_time,
)
from workbench.store.reader import RunReader
from workbench.store.schema import TABLES

_MS = 1e6
_S = 1e9


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
    rows = numbers(arrivals)
    reason = rows["reason"].fillna("")
    completed = rows[reason.isin(of.COMPLETED)]
    begin, end = span_ns(rows, ticks)
    seconds = (end - begin) / _S
    good = _within(completed, slo) if slo else None
    kept = int(rows["num_kept"].sum())
    step_shares = max(1, len(shares))
    mean_active = mean_over_time(ticks, ticks["active"], end - begin)
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
        output_throughput=per(kept, seconds),
        request_throughput=per(len(completed), seconds),
        request_goodput=None if good is None else per(int(good.sum()), seconds),
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
