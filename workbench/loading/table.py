"""A load run's figures as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from workbench.loading import wording
from workbench.loading.definitions import LATENCIES
from workbench.loading.metrics import LoadMetrics
from workbench.view.visible import safe_text

_BAR = 40
#: letters so that the bar reads without colour
_LANES = {
    "target": ("t", "blue"),
    "draft": ("d", "yellow"),
    "prefill": ("p", "magenta"),
    "other": ("o", "white"),
    "idle": ("·", "bright_black"),
}


def rendered(found: LoadMetrics, *, slots: int | None) -> Iterator[RenderableType]:
    """Verdict, latencies, what time went to, and clients where there are several."""
    yield Text(wording.verdict(found), style="bold")
    if not found.requests:
        return
    yield Text(wording.queue_sentence(found, slots))
    yield latency_table(found)
    yield lane_bar(found)
    yield Text(
        f"{found.tokens_per_step:.2f} tokens and {found.nodes_per_step:.1f} drafted nodes per "
        f"request and step; {found.mean_active:.1f} requests in a batch, averaged over time",
        style="dim",
    )
    if found.deadlines_met is not None:
        yield Text(f"{found.deadlines_met:.0%} of requests with a deadline met it")
    if len(found.clients) > 1:
        yield client_table(found)
        yield Text(wording.fairness_sentence(found))


def latency_table(found: LoadMetrics) -> Table:
    """Mean and percentiles of every latency, with what it is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("latency")
    for name in ("mean", "median", "p90", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("of", justify="right")
    table.add_column("which is", style="dim", overflow="fold")
    for name, one in found.latencies.items():
        unit = "chunks" if name == "itl" else "requests"
        table.add_row(
            name,
            *(wording.shown_ms(value) for value in (one.mean, one.median, one.p90, one.p99)),
            f"{one.count:,} {unit}",
            LATENCIES[name],
        )
    return table


def client_table(found: LoadMetrics, *, most: int = 20) -> Table:
    """A line for each client; the first `most` of them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("client", overflow="fold")
    for name in ("requests", "completed", "refused", "tokens", "tokens/s", "ttft", "e2el"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.clients[:most]:
        latencies = (one.ttft_ms, one.e2el_ms)
        table.add_row(
            Text(safe_text(one.client)),
            *(f"{count:,}" for count in (one.requests, one.completed, one.refused, one.tokens)),
            f"{one.tokens_per_second:.1f}",
            *("-" if value is None else wording.shown_ms(value) for value in latencies),
        )
    if len(found.clients) > most:
        table.add_row(f"and {len(found.clients) - most} more", *[""] * 7)
    return table


def lane_bar(found: LoadMetrics) -> Text:
    """What the time went to, as one bar."""
    bar, legend = Text(), Text()
    for lane, share in found.lanes.items():
        letter, style = _LANES[lane]
        bar.append(letter * round(share * _BAR), style=style)
        legend.append(f"  {lane} {share:.0%}", style=style)
    return bar + legend
