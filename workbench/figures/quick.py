"""A chart of a query's rows: one column against another, a line or bar for each group."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName

#: more groups cannot be told apart, more marks not be seen
MOST_GROUPS = 8
MOST_MARKS = 2_000
_FEW = 12  # whole numbers of so small a range get a mark each


def quick(
    rows: pd.DataFrame, *, x: str, y: str, by: str | None = None, theme: ThemeName = "light"
) -> go.Figure:
    """Bars where `x` holds words, lines where it holds numbers. `y` holds numbers.

    Of more than `MOST_GROUPS` groups those with most rows are drawn, and the first `MOST_MARKS`
    rows.
    """
    drawn = rows.dropna(subset=[x, y]).head(MOST_MARKS)
    if drawn.empty:
        return look.empty(theme, "Nothing to draw: these columns hold no values together.")
    drawn = drawn.assign(group="" if by is None else drawn[by].map(_word))
    kept = list(drawn["group"].value_counts().head(MOST_GROUPS).index)
    groups = [group for group in dict.fromkeys(drawn["group"]) if group in kept]
    found = look.figure(theme, height=360, barmode="group")
    as_numbers = pd.api.types.is_numeric_dtype(drawn[x])
    for group, style in look.arm_styles(groups, theme).items():
        part = drawn[drawn["group"] == group]
        named = {"name": look.plain(group, most=44), "showlegend": by is not None}
        if as_numbers:
            part = part.sort_values(x, kind="stable")
            found.add_scatter(
                x=part[x].to_numpy(float),
                y=part[y].to_numpy(float),
                mode="lines+markers" if part[x].is_unique else "markers",
                line={"color": style.colour, "width": 2, "dash": style.dash},
                marker={"symbol": style.symbol, "size": 7},
                **named,
            )
        else:
            found.add_bar(
                x=[look.plain(_word(value), most=28) for value in part[x]],
                y=part[y].to_numpy(float),
                marker={"color": style.colour},
                **named,
            )
    found.update_xaxes(title_text=look.plain(x))
    if as_numbers and pd.api.types.is_integer_dtype(drawn[x]) and _span(drawn[x]) <= _FEW:
        found.update_xaxes(dtick=1)
    found.update_yaxes(title_text=look.plain(y), rangemode="tozero")
    return found


def _span(values: pd.Series) -> float:
    return float(values.max()) - float(values.min())


def _word(value: object) -> str:
    return "–" if value is None or value != value else str(value)
