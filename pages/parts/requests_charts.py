"""Charts of a stored load run, below its tables."""

from __future__ import annotations

from pages.parts.charts import show_charts
from workbench.figures import requests as figures
from workbench.report.content import Chart
from workbench.view import requests_series as series
from workbench.view.requests import Served


def charts(served: Served, *, key: str) -> None:
    """Queue and batch, latency, throughput, nodes against load."""
    if not len(served.history.ticks):
        return
    load, law = series.load_over_time(served), series.latency_law(served)
    flow, trees = series.throughput(served), series.nodes_by_load(served)
    shown = [
        Chart(
            "Queue and batch",
            "A queue that grows to the end is a rate that these slots cannot serve.",
            lambda theme: figures.queue_and_batch(load, theme=theme),
        ),
        Chart(
            "Latency",
            "Share of the requests that took at most so long; marks at the median, p90 and p99.",
            lambda theme: figures.latency_law(law, theme=theme),
        ),
        Chart(
            "Throughput",
            "Tokens kept of all requests together; the dotted line is their mean.",
            lambda theme: figures.throughput(flow, theme=theme),
        ),
        Chart(
            "Trees against load",
            "Nodes that one request is given as others share its steps, with quartiles.",
            lambda theme: figures.nodes_by_load(trees, theme=theme),
        ),
    ]
    show_charts(shown, key=f"requests/{key}")
