"""Figures of what was accepted: per step, by depth, by rank, and against the draft's own belief."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES

_NOTHING_DRAFTED = "Nothing was drafted."


def tokens_per_step(rows: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Emitted tokens per step, bonus or correction included, over plain decoding's one.

    `rows` has the columns of `frames.rows_frame`.
    """
    drawn = rows[rows["drafts"]]
    if drawn.empty:
        return look.empty(theme, _NOTHING_DRAFTED)
    arms = list(dict.fromkeys(drawn["arm"]))
    workloads = list(dict.fromkeys(drawn["workload"]))
    found = look.figure(theme, height=80 + look.ROW_HEIGHT * len(arms) * min(2, len(workloads)))
    for workload, style, part in look.parts(drawn, theme, by="workload"):
        found.add_bar(
            x=part["tokens_per_step"].to_numpy(),
            y=[look.plain(arm, most=44) for arm in part["arm"]],
            orientation="h",
            name=look.plain(workload),
            showlegend=len(workloads) > 1,
            marker={"color": style.colour},
            text=[f"{value:.2f}" for value in part["tokens_per_step"]],
            textposition="outside",
            cliponaxis=False,
            customdata=part[["acceptance_rate", "repetition"]].to_numpy(float),
            hovertemplate="%{x:.2f} tokens per step<br>%{customdata[0]:.0%} of drafted accepted"
            "<br>%{customdata[1]:.1%} repetition",
        )
    look.reference_line(found, theme, x=1.0)
    found.update_yaxes(autorange="reversed", showgrid=False)
    room = 1.12 * max(1.0, float(drawn["tokens_per_step"].max()))  # for the figure behind a bar
    found.update_xaxes(title_text="tokens per step", showgrid=True, range=[0, room])
    return found


def accepted_histogram(histogram: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Share of steps that accepted 0, 1, 2, ... nodes.

    `histogram` has the columns of `frames.accepted_histogram`.
    """
    if histogram.empty or histogram["accepted"].max() == 0:
        return look.empty(theme, _NOTHING_DRAFTED)
    found = look.figure(theme, barmode="group", bargap=0.2)
    for arm, style, part in look.parts(histogram, theme):
        found.add_bar(
            x=part["accepted"].to_numpy(),
            y=part["share"].to_numpy(),
            name=look.plain(arm, most=44),
            marker={"color": style.colour},
            customdata=part["steps"].to_numpy(),
            hovertemplate="%{x} accepted in %{y:.1%} of steps (%{customdata})",
        )
    found.update_xaxes(title_text="accepted nodes in a step", dtick=1)
    found.update_yaxes(title_text="share of steps", tickformat=".0%")
    return found


def acceptance_by_depth(shares: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Of the nodes tested at each depth, the share accepted.

    `shares` has the columns of `frames.acceptance_by` for "depth".
    """
    found = _shares(shares, "depth", theme)
    found.update_xaxes(title_text="depth in the tree", dtick=1)
    return found


def acceptance_by_rank(shares: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Of the nodes tested at each rank among their siblings, the share accepted.

    `shares` has the columns of `frames.acceptance_by` for "rank".
    """
    found = _shares(shares.assign(rank=shares["rank"] + 1), "rank", theme)
    found.update_xaxes(title_text="rank among siblings, the draft's first choice is 1", dtick=1)
    return found


def reliability(bins: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """The draft's probability against how often its token was accepted; on the line it is right.

    `bins` has the columns of `frames.reliability`. A mark's area grows with its count.
    """
    if bins.empty:
        return look.empty(theme, _NOTHING_DRAFTED)
    found = look.figure(theme, height=340)
    found.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": THEMES[theme].mute, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    largest = float(bins["count"].max())
    for arm, style, part in look.parts(bins, theme):
        found.add_scatter(
            x=part["probability"].to_numpy(),
            y=part["share"].to_numpy(),
            mode="lines+markers",
            name=look.plain(arm, most=44),
            line={"color": style.colour, "width": 1.5, "dash": style.dash},
            marker={
                "symbol": style.symbol,
                "size": (6 + 14 * (part["count"] / largest) ** 0.5).to_numpy(),
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part["share"]).to_numpy(),
                "arrayminus": (part["share"] - part["low"]).to_numpy(),
                "color": style.colour,
                "thickness": 1,
                "width": 2,
            },
            customdata=part["count"].to_numpy(),
            hovertemplate="draft says %{x:.0%}, accepted %{y:.0%} of %{customdata} tested",
        )
    found.update_xaxes(title_text="draft probability", tickformat=".0%", range=[-0.02, 1.02])
    found.update_yaxes(title_text="share accepted", tickformat=".0%", range=[-0.02, 1.02])
    return found


def _shares(shares: pd.DataFrame, by: str, theme: ThemeName) -> go.Figure:
    if shares.empty:
        return look.empty(theme, _NOTHING_DRAFTED)
    found = look.figure(theme)
    for arm, style, part in look.parts(shares, theme):
        found.add_scatter(
            x=part[by].to_numpy(),
            y=part["share"].to_numpy(),
            mode="lines+markers",
            name=look.plain(arm, most=44),
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 8},
            customdata=part["tested"].to_numpy(),
            hovertemplate=f"{by} %{{x}}: %{{y:.0%}} of %{{customdata}} tested",
        )
    found.update_yaxes(title_text="share accepted", tickformat=".0%", rangemode="tozero")
    return found
