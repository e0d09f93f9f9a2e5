"""Figures of speed: speedups, the frontier against tree size, and speed along a request."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES


def speedups(rows: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Speedup over plain decoding with its 95% interval, arm by arm; a mark per workload.

    `rows` has the columns of `frames.rows_frame`.
    """
    if rows.empty:
        return look.empty(theme, "No arm was measured yet.")
    arms = list(dict.fromkeys(rows["arm"]))
    workloads = list(dict.fromkeys(rows["workload"]))
    styles = look.arm_styles(workloads, theme)
    height = 70 + look.ROW_HEIGHT * len(arms) + 12 * len(arms) * (len(workloads) - 1)
    found = look.figure(theme, height=max(height, 160))
    for nth, workload in enumerate(workloads):
        part = rows[rows["workload"] == workload]
        shift = 0.0 if len(workloads) == 1 else (nth / (len(workloads) - 1) - 0.5) * 0.5
        style = styles[workload]
        at = [len(arms) - 1 - arms.index(arm) - shift for arm in part["arm"]]
        found.add_scatter(
            x=part["speedup"].to_numpy(),
            y=at,
            mode="markers",
            name=look.plain(workload),
            showlegend=len(workloads) > 1,
            marker={"color": style.colour, "symbol": style.symbol, "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part["speedup"]).to_numpy(),
                "arrayminus": (part["speedup"] - part["low"]).to_numpy(),
                "color": style.colour,
                "thickness": 2,
                "width": 5,
            },
            customdata=part[["low", "high", "finding", "tokens_per_second"]].to_numpy(),
            text=[look.plain(arm) for arm in part["arm"]],
            hovertemplate="%{text}<br><b>%{x:.2f}×</b> [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
            "<br>%{customdata[2]}, %{customdata[3]:.1f} tokens/s<extra></extra>",
        )
    look.reference_line(found, theme, x=1.0)
    found.update_yaxes(
        tickvals=list(range(len(arms))),
        ticktext=[look.plain(arm, most=44) for arm in reversed(arms)],
        range=[-0.6, len(arms) - 0.4],
        showgrid=False,
    )
    found.update_xaxes(
        title_text="speedup over plain decoding, 95% interval", showgrid=True, ticksuffix="×"
    )
    return found


def frontier(rows: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Speedup against the mean size of a tree; the line joins the best at each size."""
    drawn = rows[rows["drafts"] | (rows["arm"] == "autoregressive")]
    if drawn.empty:
        return look.empty(theme, "No drafting method was measured.")
    found = look.figure(theme)
    best = drawn.sort_values(["nodes", "speedup"])
    best = best[best["speedup"] >= best["speedup"].cummax()]
    found.add_scatter(
        x=best["nodes"].to_numpy(),
        y=best["speedup"].to_numpy(),
        mode="lines",
        line={"color": THEMES[theme].line, "width": 6},
        hoverinfo="skip",
        showlegend=False,
    )
    for arm, style, part in look.parts(drawn, theme):
        found.add_scatter(
            x=part["nodes"].to_numpy(),
            y=part["speedup"].to_numpy(),
            mode="markers",
            name=look.plain(arm, most=44),
            marker={"color": style.colour, "symbol": style.symbol, "size": 11},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part["speedup"]).to_numpy(),
                "arrayminus": (part["speedup"] - part["low"]).to_numpy(),
                "color": style.colour,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=part[["tokens_per_step", "workload"]].map(_shown).to_numpy(),
            hovertemplate="<b>%{y:.2f}×</b> at %{x:.1f} nodes, %{customdata[0]} tokens per step"
            "<br>%{customdata[1]}",
        )
    look.reference_line(found, theme, y=1.0)
    found.update_xaxes(title_text="nodes of a tree, root included (mean)", rangemode="tozero")
    found.update_yaxes(title_text="speedup", ticksuffix="×")
    return found


def speed_over_time(speed: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Tokens per second along a request, from the end of prefill to the last token.

    `speed` has the columns of `frames.speed_over_time`.
    """
    found = _lines(speed, "share", theme)
    found.update_xaxes(title_text="share of the request's time", tickformat=".0%", range=[0, 1])
    return found


def speed_by_context(speed: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Tokens per second against the length of the context, prompt included.

    `speed` has the columns of `frames.speed_by_context`.
    """
    found = _lines(speed, "position", theme)
    found.update_xaxes(title_text="context length, tokens")
    return found


def _lines(speed: pd.DataFrame, by: str, theme: ThemeName) -> go.Figure:
    if speed.empty:
        return look.empty(theme, "These runs hold no steps.")
    found = look.figure(theme)
    for arm, style, part in look.parts(speed, theme):
        found.add_scatter(
            x=part[by].to_numpy(),
            y=part["tokens_per_second"].to_numpy(),
            mode="lines+markers",
            name=look.plain(arm, most=44),
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 6},
            customdata=part["steps"].to_numpy(),
            hovertemplate="%{y:.1f} tokens/s, %{customdata} steps",
        )
    found.update_yaxes(title_text="tokens per second", rangemode="tozero")
    return found


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else look.plain(str(value))
