"""What all figures share: colours that colour-blind eyes tell apart, one quiet layout, digits.

Arms take their colours from Okabe and Ito's palette, adjusted to either ground; a symbol and a dash
go with each, so that nothing is told by colour alone. Stages and fates keep the colours they have
in the tree view.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from workbench.view.theme import THEMES, ThemeName

FONT = '"Source Sans", "Source Sans 3", "Source Sans Pro", system-ui, sans-serif'
CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
"""For every place where a figure is shown."""

HEIGHT = 300
ROW_HEIGHT = 34

_ARMS = {
    "light": (
        "#0072b2",
        "#d55e00",
        "#008a66",
        "#a8448a",
        "#a67c00",
        "#4d4d4d",
        "#2f9bd8",
        "#b3352d",
    ),
    "dark": (
        "#56b4e9",
        "#f0843c",
        "#3ec79f",
        "#e39ac8",
        "#e9c23f",
        "#c9cdd4",
        "#9ad4f5",
        "#f0857d",
    ),
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
#: a bar's hatching, so that stages are told apart in print
_HATCHES = {"build": "/", "verify": "\\", "commit": "x", "record": ".", "unaccounted": "-"}


class ArmStyle(NamedTuple):
    """How one arm is drawn wherever it appears."""

    colour: str
    symbol: str
    dash: str


def arm_styles(arms: Sequence[str] | pd.Series, theme: ThemeName) -> dict[str, ArmStyle]:
    """A style for each distinct arm, in order.

    A categorical column also has a style for the arms it does not hold, so that an arm looks
    alike in all figures of a report, whichever arms stand beside it.
    """
    if isinstance(arms, pd.Series) and isinstance(arms.dtype, pd.CategoricalDtype):
        arms = list(arms.dtype.categories)
    colours = _ARMS[theme]
    return {
        arm: ArmStyle(
            colours[at % len(colours)],
            _SYMBOLS[(at + at // len(colours)) % len(_SYMBOLS)],
            _DASHES[(at + at // len(colours)) % len(_DASHES)],
        )
        for at, arm in enumerate(dict.fromkeys(arms))
    }


def parts(
    frame: pd.DataFrame, theme: ThemeName, *, by: str = "arm"
) -> Iterator[tuple[str, ArmStyle, pd.DataFrame]]:
    """Each arm of a frame with its style and its rows; arms without rows are passed over."""
    for arm, style in arm_styles(frame[by], theme).items():
        part = frame[frame[by] == arm]
        if not part.empty:
            yield arm, style, part


def stage_colour(stage: str, theme: ThemeName) -> str:
    """The colour of a stage of a step."""
    palette = THEMES[theme]
    return {
        "draft": palette.draft,
        "build": palette.correction,
        "score": palette.ink,
        "verify": palette.bonus,
        "commit": palette.accepted,
        "record": palette.mute,
    }.get(stage, palette.other)


def hatch(stage: str) -> str:
    """The hatching of a stage's bar; empty for the two large stages."""
    return _HATCHES.get(stage, "")


def plain(text: str, *, most: int = 60) -> str:
    """Text from outside for a Plotly label, which would read tags in it."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return html.escape(shown, quote=False)


def figure(theme: ThemeName, *, height: int = HEIGHT, **layout: Any) -> go.Figure:
    """An empty figure in the common layout. `layout` is merged into it."""
    palette = THEMES[theme]
    axis = {
        "gridcolor": palette.line,
        "linecolor": palette.line,
        "tickcolor": palette.line,
        "title": {"font": {"size": 12, "color": palette.mute}, "standoff": 8},
        "automargin": True,
        "zeroline": False,
    }
    found = go.Figure()
    found.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": palette.ink},
        margin={"l": 8, "r": 16, "t": 12, "b": 8},
        xaxis=axis | {"showgrid": False},
        yaxis=axis,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        hoverlabel={
            "bgcolor": palette.panel,
            "bordercolor": palette.line,
            "font": {"family": FONT, "size": 13, "color": palette.ink},
        },
        bargap=0.35,
        modebar={
            "bgcolor": "rgba(0,0,0,0)",
            "color": palette.line,
            "activecolor": palette.ink,
            "remove": ["select2d", "lasso2d", "autoScale2d"],
        },
    )
    found.update_layout(**layout)
    return found


def reference_line(
    found: go.Figure, theme: ThemeName, *, x: float | None = None, y: float | None = None
) -> None:
    """A thin line that values are read against."""
    line = {"color": THEMES[theme].mute, "width": 1, "dash": "dot"}
    if x is not None:
        found.add_vline(x=x, line=line)
    if y is not None:
        found.add_hline(y=y, line=line)


def empty(theme: ThemeName, message: str) -> go.Figure:
    """A figure that says why it is empty."""
    found = figure(theme, height=120)
    found.update_xaxes(visible=False)
    found.update_yaxes(visible=False)
    found.add_annotation(
        text=plain(message, most=200),
        showarrow=False,
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        font={"color": THEMES[theme].mute},
    )
    return found
