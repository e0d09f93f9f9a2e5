"""Figures of load runs: queue and batch, latency, throughput, and trees as the load grows."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES

_LABELS = {
    "queue": "waiting",
    "ttft": "first token",
    "tpot": "each further token",
    "e2el": "whole answer",
}
_MARKED = (50, 90, 99)


def queue_and_batch(load: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Waiting requests as an area, the batch as a line.

    `load` has `second`, `waiting`, `active` from each change on.
    """
    if load.empty:
        return look.empty(theme, "No step is recorded yet.")
    palette = THEMES[theme]
    found = look.figure(theme)
    second = load["second"].to_numpy(float)
    found.add_scatter(
        x=second, y=load["waiting"].to_numpy(float), name="waiting", mode="lines",
        line={"color": palette.bonus, "width": 1.4, "shape": "hv", "dash": "dot"}, fill="tozeroy",
        fillcolor=palette.bonus_fill,
    )  # fmt: skip
    found.add_scatter(
        x=second, y=load["active"].to_numpy(float), name="in the batch", mode="lines",
        line={"color": palette.draft, "width": 2, "shape": "hv"},
    )  # fmt: skip
    found.update_xaxes(title_text="seconds since the first arrival")
    found.update_yaxes(title_text="requests", rangemode="tozero")
    return found


def latency_law(law: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Share of the requests served within a time. `law` has `figure`, `ms`, `share` in percent."""
    if law.empty:
        return look.empty(theme, "No request is served yet.")
    found = look.figure(theme)
    for name, style, part in look.parts(law, theme, by="figure"):
        x, y = part["ms"].to_numpy(float), part["share"].to_numpy(float)
        found.add_scatter(
            x=x, y=y, name=_LABELS.get(name, name), mode="lines",
            line={"color": style.colour, "dash": style.dash, "width": 2, "shape": "hv"},
            hovertemplate="%{y:.0f} % within %{x:,.1f} ms<extra></extra>",
        )  # fmt: skip
        marks = [part["ms"].quantile(q / 100) for q in _MARKED]
        found.add_scatter(
            x=marks, y=list(_MARKED), mode="markers", showlegend=False,
            marker={"color": style.colour, "symbol": style.symbol, "size": 8},
            text=[f"p{q}" for q in _MARKED],
            hovertemplate="%{text} %{x:,.1f} ms<extra></extra>",
        )  # fmt: skip
    found.update_xaxes(title_text="milliseconds", type="log")
    found.update_yaxes(title_text="of the requests", ticksuffix=" %", range=[0, 104])
    return found


def throughput(flow: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Tokens kept per second over time, with their mean.

    `flow` has `second` and `tokens_per_second` of equal parts of the time.
    """
    if flow.empty or not flow["tokens_per_second"].any():
        return look.empty(theme, "No token is kept yet.")
    palette = THEMES[theme]
    found = look.figure(theme)
    found.add_scatter(
        x=flow["second"].to_numpy(float), y=flow["tokens_per_second"].to_numpy(float), mode="lines",
        line={"color": palette.accepted, "width": 2, "shape": "hvh"}, fill="tozeroy",
        fillcolor=palette.accepted_fill, showlegend=False,
        hovertemplate="%{x:.1f} s: %{y:.0f} tokens/s<extra></extra>",
    )  # fmt: skip
    look.reference_line(found, theme, y=float(flow["tokens_per_second"].mean()))
    found.update_xaxes(title_text="seconds since the first arrival")
    found.update_yaxes(title_text="tokens per second", rangemode="tozero")
    return found


def nodes_by_load(frame: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Nodes per request, with quartiles, and tokens that came of them, by the size of the batch."""
    if frame.empty:
        return look.empty(theme, "No step is recorded yet.")
    palette = THEMES[theme]
    found = look.figure(theme)
    active, nodes = frame["active"].to_numpy(int), frame["nodes"].to_numpy(float)
    found.add_scatter(
        x=active, y=nodes, name="nodes drafted", mode="lines+markers",
        line={"color": palette.draft, "width": 2}, marker={"symbol": "square", "size": 8},
        error_y={
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 4,
            "array": (frame["high"] - frame["nodes"]).clip(lower=0).to_numpy(float),
            "arrayminus": (frame["nodes"] - frame["low"]).clip(lower=0).to_numpy(float),
        },
        customdata=frame["steps"].to_numpy(int),
        hovertemplate="%{x} in the batch: %{y:.1f} nodes each, %{customdata} steps<extra></extra>",
    )  # fmt: skip
    found.add_scatter(
        x=active, y=frame["brought"].to_numpy(float), name="tokens kept", mode="lines+markers",
        line={"color": palette.accepted, "width": 2, "dash": "dash"},
        marker={"symbol": "circle", "size": 8},
        hovertemplate="%{x} in the batch: %{y:.2f} tokens each<extra></extra>",
    )  # fmt: skip
    found.update_xaxes(title_text="requests in the batch", dtick=1 if active.max() <= 16 else None)
    found.update_yaxes(title_text="per request and step", rangemode="tozero")
    return found
