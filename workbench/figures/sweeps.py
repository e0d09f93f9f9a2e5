"""Figures of sweeps: heat maps over two options, lines over one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES

_CELL_HEIGHT = 46
#: from slower than plain decoding over as fast to faster; told apart without red and green
_AROUND_ONE = {
    "light": ["#b35806", "#f7d9b0", "#f7f7f5", "#c6dbef", "#0868ac"],
    "dark": ["#f0843c", "#6b4526", "#191d26", "#254a6b", "#56b4e9"],
}
_UPWARD = {"light": ["#f7f7f5", "#9ecae1", "#08519c"], "dark": ["#191d26", "#2b5f8a", "#8fd3ff"]}
_WORDS = {
    "speedup": ("speedup over plain decoding", "×"),
    "tokens_per_step": ("tokens per step", ""),
    "acceptance_rate": ("acceptance rate", " %"),
}


def heat_map(
    cells: pd.DataFrame, *, x: str, y: str, value: str, theme: ThemeName = "light"
) -> go.Figure:
    """One value over two options, figures in the cells, the best one framed and starred.

    `cells` has one line for each pair of values in the columns `x` and `y`, in order; where
    nothing is measured yet, `value` is missing.
    """
    if cells.empty or cells[value].notna().sum() == 0:
        return look.empty(theme, "No cell is measured yet.")
    across, down = _distinct(cells[x]), _distinct(cells[y])
    at = {(line[x], line[y]): line for line in cells.to_dict("records")}
    lines = [[at.get((column, row)) for column in across] for row in down]
    values = np.array([[_number(line, value) for line in row] for row in lines])
    best = tuple(np.argwhere(values == np.nanmax(values))[0])
    palette = THEMES[theme]
    found = look.figure(theme, height=110 + _CELL_HEIGHT * len(down))
    found.add_heatmap(
        z=values,
        x=list(range(len(across))),
        y=list(range(len(down))),
        text=[
            [
                f"{'★ ' if (r, c) == best else ''}{_shown(values[r, c], value)}"
                for c in range(len(across))
            ]
            for r in range(len(down))
        ],
        texttemplate="%{text}",
        customdata=[[_card(line, value) for line in row] for row in lines],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=3,
        ygap=3,
        colorbar={"ticksuffix": _unit(value), "thickness": 10, "outlinewidth": 0, "len": 1.0},
        **_scale(values, value, theme),
    )
    for r, c in np.argwhere(np.isnan(values)):
        found.add_annotation(
            x=int(c), y=int(r), text="–", showarrow=False, font={"color": palette.mute}
        )
    row, column = (int(place) for place in best)
    found.add_shape(
        type="rect",
        x0=column - 0.48, x1=column + 0.48, y0=row - 0.46, y1=row + 0.46,
        line={"color": palette.ink, "width": 2.5},
    )  # fmt: skip
    found.update_xaxes(title_text=_option(x), **_ticks(across))
    found.update_yaxes(title_text=_option(y), showgrid=False, **_ticks(down))
    return found


def sweep_lines(
    cells: pd.DataFrame, *, x: str, by: str, value: str, theme: ThemeName = "light"
) -> go.Figure:
    """One value over one option, a line for each value of the column `by`.

    `cells` has one line for each pair of values in `x` and `by`, in order, with the interval of a
    speedup in `low` and `high`.
    """
    drawn = cells[cells[value].notna()] if value in cells else cells
    if drawn.empty:
        return look.empty(theme, "No cell is measured yet.")
    across = _distinct(drawn[x])
    numbers = all(isinstance(one, int | float) for one in across)
    found = look.figure(theme)
    for name, style, part in look.parts(drawn, theme, by=by):
        places = [one if numbers else across.index(one) for one in part[x]]
        interval: dict[str, Any] = {}
        if value == "speedup":
            interval["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part[value]).to_numpy(float),
                "arrayminus": (part[value] - part["low"]).to_numpy(float),
                "color": style.colour,
                "thickness": 1.5,
                "width": 4,
            }
        found.add_scatter(
            x=places,
            y=[_number(line, value) for line in part.to_dict("records")],
            mode="lines+markers",
            name=look.plain(str(name), most=44),
            showlegend=drawn[by].nunique() > 1,
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 9},
            customdata=[_card(line, value) for line in part.to_dict("records")],
            hovertemplate="%{customdata}<extra></extra>",
            **interval,
        )
    if value == "speedup":
        look.reference_line(found, theme, y=1.0)
    ticks = {"tickvals": across} if numbers and len(across) <= 16 else {}
    found.update_xaxes(title_text=_option(x), **(ticks if numbers else _ticks(across)))
    found.update_yaxes(title_text=_WORDS.get(value, (value, ""))[0], ticksuffix=_unit(value))
    return found


def _scale(values: np.ndarray, value: str, theme: ThemeName) -> dict[str, Any]:
    colours = (_AROUND_ONE if value == "speedup" else _UPWARD)[theme]
    steps = [[at / (len(colours) - 1), colour] for at, colour in enumerate(colours)]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if value == "speedup":  # as much above one as below, so that its middle means "as fast"
        reach = max(high - 1.0, 1.0 - low, 0.05)
        low, high = 1.0 - reach, 1.0 + reach
    elif low == high:
        low, high = low - 0.5, high + 0.5
    return {"colorscale": steps, "zmin": low, "zmax": high}


def _distinct(column: pd.Series) -> list[Any]:
    def place(value: Any) -> tuple[int, float, str]:
        return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))

    return sorted(dict.fromkeys(column), key=place)


def _ticks(values: list[Any]) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(values))),
        "ticktext": [look.plain(str(value), most=24) for value in values],
    }


def _card(line: Mapping[Hashable, Any] | None, value: str) -> str:
    if line is None or np.isnan(_number(line, value)):
        return "not measured yet"
    said = (
        f"{look.plain(str(line['arm']), most=80)}<br><b>{_shown(_number(line, value), value)}</b>"
    )
    if value == "speedup" and not np.isnan(_number(line, "low")):
        said += f" [{line['low']:.2f}, {line['high']:.2f}]"
    other = "tokens_per_step" if value == "speedup" else "speedup"
    if not np.isnan(_number(line, other)):
        said += f"<br>{_WORDS[other][0]} {_shown(line[other], other)}"
    return said


def _shown(number: float, value: str) -> str:
    if np.isnan(number):
        return ""
    digits = 0 if value == "acceptance_rate" else 2
    return f"{number:.{digits}f}{_unit(value)}"


def _number(line: Mapping[Hashable, Any] | None, value: str) -> float:
    """In the unit it is drawn in: shares as per cent."""
    found = None if line is None else line.get(value)
    if found is None:
        return np.nan
    return 100 * float(found) if value == "acceptance_rate" else float(found)


def _unit(value: str) -> str:
    return _WORDS.get(value, ("", ""))[1]


def _option(column: str) -> str:
    return look.plain(column.removeprefix("option.").replace("_", " "))
