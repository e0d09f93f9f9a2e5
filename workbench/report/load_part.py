"""What a report says of runs that served requests as they came: a sentence, tables, charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from workbench.comparing.wording import percent
from workbench.figures import requests as figures
from workbench.loading import wording
from workbench.loading.definitions import LATENCIES
from workbench.loading.metrics import LoadMetrics, of_run
from workbench.loading.over_time import over_time
from workbench.loading.spec import LoadSpec
from workbench.report.content import Chart, Column, Report, Table
from workbench.store import serving
from workbench.store.reader import RunReader
from workbench.view.theme import ThemeName


class Served(NamedTuple):
    """A load run: how it is called, its figures, and what happened over time."""

    arm: str
    found: LoadMetrics
    slots: int | None
    over_time: pd.DataFrame


def add_load(report: Report, readers: Sequence[RunReader], arms: Mapping[str, str]) -> None:
    """Put in what there is to say of load runs; nothing where none is among them.

    In a report on one run its sentence comes first: what was asked is whether the load was carried.
    """
    served = [one for reader in readers if (one := _served(reader, arms)) is not None]
    if not served:
        return
    tables = [_overview(served)]
    charts: list[Chart] = []
    for one in served:
        behind = f" of {one.arm}" if len(served) > 1 else ""
        tables.append(_latencies(one, behind))
        if len(one.found.clients) > 1:
            tables.append(_clients(one, behind))
        charts += _charts(one, behind)
    report.tables = [*tables, *report.tables]
    report.charts = [*charts, *report.charts]
    if len(readers) == 1:
        report.verdict = wording.verdict(served[0].found)
        report.facts = _facts(served[0])


def _served(reader: RunReader, arms: Mapping[str, str]) -> Served | None:
    found = of_run(reader)
    if found is None:
        return None
    spec = reader.info.spec
    slots = spec.slots * len(spec.pair_specs) if isinstance(spec, LoadSpec) else None
    rows = serving.arrivals(reader), serving.ticks(reader), serving.shares(reader)
    return Served(arms[reader.info.run_id], found, slots, over_time(*rows))


def _facts(one: Served) -> list[str]:
    found = one.found
    facts = [
        f"{wording.counted(found.output_tokens, 'token')} in {found.duration_s:.1f} s",
        f"{found.tokens_per_step:.2f} tokens per request and step",
    ]
    if found.slots_used is not None:
        facts.append(f"{percent(found.slots_used)} of {wording.counted(one.slots or 0, 'slot')}")
    if found.fairness is not None:
        facts.append(f"fairness {found.fairness:.3f}")
    return facts


def _overview(served: Sequence[Served]) -> Table:
    names = (
        "requests", "completed", "refused", "given up", "tokens/s", "good requests/s", "waiting",
        "in the batch", "target busy", "draft busy", "idle",
    )  # fmt: skip
    lines = []
    for one in served:
        found = one.found
        goodput = "" if found.request_goodput is None else f"{found.request_goodput:.2f}"
        lines.append(
            [
                one.arm,
                *(f"{count:,}" for count in (found.requests, found.completed, found.refused)),
                f"{found.cancelled + found.timed_out:,}",
                f"{found.output_throughput:.1f}",
                goodput,
                f"{found.mean_waiting:.1f}",
                f"{found.mean_active:.1f}",
                *(percent(found.lanes.get(lane, 0.0)) for lane in ("target", "draft", "idle")),
            ]
        )
    note = (
        "Tokens are of all requests, also of those given up; waiting and in the batch are averaged "
        "over time."
    )
    return Table(
        "Load", [Column("run"), *(Column(name, number=True) for name in names)], lines, note=note
    )


def _latencies(one: Served, behind: str) -> Table:
    shown = wording.shown_ms
    lines = [
        [
            name,
            *(shown(value) for value in (found.mean, found.median, found.p90, found.p99)),
            f"{found.count:,}",
            LATENCIES[name],
        ]
        for name, found in one.found.latencies.items()
    ]
    numbers = [Column(name, number=True) for name in ("mean", "median", "p90", "p99", "of")]
    columns = [Column("latency"), *numbers, Column("which is")]
    return Table(f"Latencies{behind}", columns, lines)


def _clients(one: Served, behind: str) -> Table:
    names = ("requests", "completed", "refused", "tokens", "tokens/s", "first token", "whole")
    lines = [
        [
            by.client,
            *(f"{count:,}" for count in (by.requests, by.completed, by.refused, by.tokens)),
            f"{by.tokens_per_second:.1f}",
            *("" if ms is None else wording.shown_ms(ms) for ms in (by.ttft_ms, by.e2el_ms)),
        ]
        for by in one.found.clients
    ]
    columns = [Column("client"), *(Column(name, number=True) for name in names)]
    return Table(f"Clients{behind}", columns, lines, note=wording.fairness_sentence(one.found))


def _charts(one: Served, behind: str) -> list[Chart]:
    if one.over_time.empty:
        return []
    speed = one.over_time["tokens_per_second"]
    return [
        Chart(
            f"Queue and batch{behind}",
            wording.queue_sentence(one.found, one.slots),
            partial(_queue, one.over_time),
            wide=True,
        ),
        Chart(
            f"Throughput over time{behind}",
            f"{speed.mean():.0f} tokens per second on average, {speed.max():.0f} at most in a "
            "sixtieth of the time.",
            partial(_throughput, one.over_time),
            wide=True,
        ),
    ]


def _queue(load: pd.DataFrame, theme: ThemeName) -> go.Figure:
    return figures.queue_and_batch(load, theme=theme)


def _throughput(load: pd.DataFrame, theme: ThemeName) -> go.Figure:
    return figures.throughput(load, theme=theme)
