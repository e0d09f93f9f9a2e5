"""Figures of where time goes: stages of a step, what each costs in speedup, score time by size."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES


def stage_shares(stages: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Milliseconds of a mean step by stage, arm by arm; `unaccounted` is always shown.

    `stages` has the columns of `frames.stage_times`.
    """
    if stages.empty or stages["ms"].sum() == 0:
        return look.empty(theme, "Stage times were not measured.")
    arms = list(dict.fromkeys(stages["arm"]))
    found = look.figure(theme, height=150 + look.ROW_HEIGHT * len(arms), barmode="stack")
    for stage, part in stages.groupby("stage", sort=False):
        if part["ms"].sum() == 0:
            continue
        found.add_bar(
            x=part["ms"].to_numpy(),
            y=[look.plain(arm, most=44) for arm in part["arm"]],
            orientation="h",
            name=str(stage),
            marker={
                "color": look.stage_colour(str(stage), theme),
                "pattern": {"shape": look.hatch(str(stage)), "fillmode": "replace", "size": 5},
            },
            customdata=part["share"].to_numpy(),
            hovertemplate=f"{stage}: %{{x:.3f}} ms, %{{customdata:.1%}} of the step",
        )
    found.update_yaxes(autorange="reversed", showgrid=False)
    found.update_xaxes(title_text="milliseconds of a mean step", showgrid=True)
    found.update_layout(legend={"traceorder": "normal"})
    return found


class _Part(NamedTuple):
    name: str
    colour: str
    hatch: str


def stage_waterfall(costs: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """From the ideal speedup (tokens per step) down to the real one, each drop named.

    Read a bar from its right end: what scoring a tree instead of a token takes, then drafting, then
    all the rest; the filled part is what is left. `costs` has the columns of `frames.waterfalls`.
    """
    return _waterfall(costs, "measured speedup", theme)


def estimated_waterfall(costs: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """The same of runs alone: what is left was not measured against plain decoding.

    `costs` has the columns of `predictions.estimated_waterfalls`.
    """
    return _waterfall(costs, "estimated", theme)


def _waterfall(costs: pd.DataFrame, left_over: str, theme: ThemeName) -> go.Figure:
    if costs.empty:
        return look.empty(theme, "Stage times were not measured.")
    palette = THEMES[theme]
    found = look.figure(theme, height=140 + look.ROW_HEIGHT * len(costs), barmode="stack")
    left = {
        _Part(left_over, palette.accepted, ""): costs["measured"],
        _Part("lost to the rest", palette.other, "-"): costs["drafted"] - costs["measured"],
        _Part("lost to drafting", palette.draft, "/"): costs["scored"] - costs["drafted"],
        _Part("lost to scoring", palette.ink, "\\"): costs["ideal"] - costs["scored"],
    }
    for part, values in left.items():
        found.add_bar(
            x=values.clip(lower=0).to_numpy(),
            y=[look.plain(arm, most=44) for arm in costs["arm"]],
            orientation="h",
            name=part.name,
            marker={
                "color": part.colour,
                "pattern": {"shape": part.hatch, "fillmode": "replace", "size": 6},
            },
            text=[f"{value:.2f}×" for value in values] if not part.hatch else None,
            insidetextanchor="end",
            customdata=values.to_numpy(),
            hovertemplate=f"{part.name}: %{{customdata:.2f}}×",
        )
    look.reference_line(found, theme, x=1.0)
    found.update_yaxes(autorange="reversed", showgrid=False)
    found.update_xaxes(
        title_text="times plain decoding; a bar ends at tokens per step",
        showgrid=True,
        ticksuffix="×",
    )
    found.update_layout(legend={"traceorder": "normal"})
    return found


def score_time(times: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Median time of a target pass against the nodes it scores, with quartiles.

    `times` has the columns of `frames.score_time`. On a memory-bound device the line is flat.
    """
    if times.empty:
        return look.empty(theme, "These runs hold no steps.")
    found = look.figure(theme)
    for arm, style, part in look.parts(times, theme):
        found.add_scatter(
            x=part["nodes"].to_numpy(),
            y=part["ms"].to_numpy(),
            mode="lines+markers",
            name=look.plain(arm, most=44),
            line={"color": style.colour, "width": 1.5, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 8},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part["ms"]).to_numpy(),
                "arrayminus": (part["ms"] - part["low"]).to_numpy(),
                "color": style.colour,
                "thickness": 1,
                "width": 3,
            },
            customdata=part["steps"].to_numpy(),
            hovertemplate="%{x} nodes: %{y:.2f} ms, median of %{customdata} steps",
        )
    found.update_xaxes(title_text="nodes scored in a pass", rangemode="tozero")
    found.update_yaxes(title_text="milliseconds", rangemode="tozero")
    return found
