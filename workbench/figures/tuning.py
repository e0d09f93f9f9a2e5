"""Figures of studies: trials and the best so far, speed against acceptance, values of options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES

_SMALL = 230
_SPEEDUP = "speedup over plain decoding"
#: state -> symbol: told apart by shape as well as by colour
_SYMBOLS = {"measured": "circle", "pruned": "x-thin", "best": "star"}


def trials_over_time(
    trials: pd.DataFrame,
    *,
    speed: bool,
    objective: str = "tokens per step",
    theme: ThemeName = "light",
) -> go.Figure:
    """The objective of every trial, the best so far as a line, the best one as a star.

    `trials` has `trial`, `state`, `value`, `best_so_far`, `best`, `told`; `speed` says that the
    objective is the speedup over plain decoding, which is marked at 1; else `objective` names it.
    """
    drawn = trials[trials["value"].notna()] if len(trials) else trials
    if drawn.empty:
        return look.empty(theme, "No trial is measured yet.")
    palette = THEMES[theme]
    found = look.figure(theme, height=320)
    line = trials[trials["best_so_far"].notna()]
    found.add_scatter(
        x=line["trial"].to_numpy(), y=line["best_so_far"].to_numpy(float), mode="lines",
        name="best so far", line={"color": palette.accepted, "width": 2, "shape": "hv"},
        hoverinfo="skip",
    )  # fmt: skip
    for state, part in _states(drawn):
        found.add_scatter(
            x=part["trial"].to_numpy(), y=part["value"].to_numpy(float), mode="markers",
            name=state, marker=_marker(state, theme),
            customdata=_cards(part, speed=speed, objective=objective),
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    if speed:
        look.reference_line(found, theme, y=1.0)
    found.update_xaxes(title_text="trial", rangemode="tozero", dtick=_tick(len(trials)))
    title = _SPEEDUP if speed else objective
    found.update_yaxes(title_text=title, ticksuffix="×" if speed else "")
    return found


def speed_against_acceptance(trials: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """Speedup over tokens per step, trial by trial: what acceptance was worth.

    `trials` as for `trials_over_time`, with `tokens_per_step`. A point far to the right that is not
    high bought its acceptance with drafting that costs too much.
    """
    known = ["value", "tokens_per_step"]
    drawn = trials[trials[known].notna().all(axis=1)] if len(trials) else trials
    if drawn.empty:
        return look.empty(theme, "No trial is measured yet.")
    found = look.figure(theme, height=320)
    for state, part in _states(drawn):
        found.add_scatter(
            x=part["tokens_per_step"].to_numpy(float), y=part["value"].to_numpy(float),
            mode="markers", name=state, marker=_marker(state, theme),
            customdata=[
                f"{card}<br>{tau:.2f} tokens per step"
                for card, tau in zip(
                    _cards(part, speed=True), part["tokens_per_step"], strict=True
                )
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    look.reference_line(found, theme, y=1.0)
    found.update_xaxes(title_text="tokens per step", showgrid=True)
    found.update_yaxes(title_text=_SPEEDUP, ticksuffix="×")
    return found


def by_option(
    trials: pd.DataFrame,
    option: str,
    *,
    speed: bool,
    objective: str = "tokens per step",
    theme: ThemeName = "light",
) -> go.Figure:
    """A small figure: the objective over the values of one option, words in their order of coming.

    `option` names the column `option.NAME`; trials in which it did not matter have none.
    """
    known = ["value", f"option.{option}"]
    drawn = trials[trials[known].notna().all(axis=1)] if len(trials) else trials
    if drawn.empty:
        return look.empty(theme, "No trial is measured yet.")
    places, ticks = _places(drawn[f"option.{option}"])
    found = look.figure(theme, height=_SMALL)
    for state, part in _states(drawn):
        found.add_scatter(
            x=[places[value] for value in part[f"option.{option}"].astype(object)],
            y=part["value"].to_numpy(float), mode="markers", name=state, showlegend=False,
            marker=_marker(state, theme),
            customdata=_cards(part, speed=speed, objective=objective),
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    if speed:
        look.reference_line(found, theme, y=1.0)
    found.update_xaxes(title_text=look.plain(option.replace("_", " ")), **ticks)
    found.update_yaxes(ticksuffix="×" if speed else "")
    return found


def _states(drawn: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    kind = np.where(drawn["best"], "best", drawn["state"])
    parts = [(state, drawn[kind == state]) for state in ("pruned", "measured", "best")]
    return [(state, part) for state, part in parts if len(part)]


def _marker(state: str, theme: ThemeName) -> dict[str, Any]:
    palette = THEMES[theme]
    colour = {"measured": palette.draft, "best": palette.accepted}.get(state, palette.mute)
    size = {"best": 15, "measured": 8}.get(state, 7)
    edge = {"width": 1.5, "color": colour} if state == "pruned" else {"width": 0}
    return {"symbol": _SYMBOLS[state], "color": colour, "size": size, "line": edge}


def _cards(part: pd.DataFrame, *, speed: bool, objective: str = "") -> list[str]:
    cards = []
    for line in part.to_dict("records"):
        value = f"{line['value']:.2f}{'×' if speed else f' {objective}'}"
        if speed and pd.notna(line.get("low")):
            value += f" [{line['low']:.2f}, {line['high']:.2f}]"
        note = " so far, broken off" if line["state"] == "pruned" else ""
        told = look.plain(str(line["told"]), most=90)
        cards.append(f"trial {line['trial']}: {told}<br><b>{value}</b>{note}")
    return cards


def _places(column: pd.Series) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Where the values of an option stand, and the ticks that name them."""
    values = list(dict.fromkeys(column.astype(object)))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return {v: v for v in values}, {"nticks": 6}
    words = {True: "on", False: "off"}
    names = [words[v] if isinstance(v, bool) else str(v) for v in values]
    ticks = {
        "tickvals": list(range(len(values))),
        "ticktext": [look.plain(name, most=16) for name in names],
        "tickangle": -40,
        "range": [-0.6, len(values) - 0.4],
    }
    return {value: at for at, value in enumerate(values)}, ticks


def _tick(count: int) -> int:
    return max(1, round(count / 12))
