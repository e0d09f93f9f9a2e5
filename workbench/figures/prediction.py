"""The figure of live estimates against measured speedups."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES


def predicted_against_measured(found: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """A mark for each arm and workload; on the line the estimate was right.

    `found` has the columns of `predictions.predictions`.
    """
    if found.empty:
        return look.empty(theme, "No arm has both an estimate and a measured speedup.")
    drawn = look.figure(theme, height=340)
    known = found[["predicted", "measured", "low", "high"]].to_numpy(float)
    low, high = (
        0.9 * min(1.0, float(known[known == known].min())),
        1.06 * float(known[known == known].max()),
    )
    drawn.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": THEMES[theme].mute, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    for arm, style, part in look.parts(found, theme):
        drawn.add_scatter(
            x=part["predicted"].to_numpy(),
            y=part["measured"].to_numpy(),
            mode="markers",
            name=look.plain(arm, most=44),
            marker={"color": style.colour, "symbol": style.symbol, "size": 10},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part["measured"]).to_numpy(),
                "arrayminus": (part["measured"] - part["low"]).to_numpy(),
                "color": style.colour,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=[look.plain(workload) for workload in part["workload"]],
            hovertemplate="estimated %{x:.2f}×, measured <b>%{y:.2f}×</b><br>%{customdata}",
        )
    drawn.update_xaxes(title_text="live estimate", ticksuffix="×", range=[low, high], showgrid=True)
    drawn.update_yaxes(title_text="measured, 95% interval", ticksuffix="×", range=[low, high])
    return drawn
