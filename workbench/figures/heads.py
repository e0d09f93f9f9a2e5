"""Figures of trainings of heads: the loss, how often guesses are right, a head's card."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import theme as look
from workbench.figures.theme import ThemeName
from workbench.view.theme import THEMES

_SMALL = 200


def loss_curve(
    steps: pd.DataFrame, held_out: pd.DataFrame, *, theme: ThemeName = "light"
) -> go.Figure:
    """The running mean of the training loss over tokens, and the loss on held-out text.

    `steps` and `held_out` have `tokens` and `loss`, in nats.
    """
    if steps.empty and held_out.empty:
        return look.empty(theme, "No step is made yet.")
    palette = THEMES[theme]
    found = look.figure(theme)
    found.add_scatter(
        x=steps["tokens"].to_numpy(), y=steps["loss"].to_numpy(float),
        mode="lines" if len(steps) > 1 else "markers", name="training",
        line={"color": palette.draft, "width": 1.5},
        hovertemplate="%{x:,} tokens: <b>%{y:.3f}</b><extra>training</extra>",
    )  # fmt: skip
    if len(held_out):
        found.add_scatter(
            x=held_out["tokens"].to_numpy(), y=held_out["loss"].to_numpy(float),
            mode="lines+markers", name="held out",
            line={"color": palette.accepted, "width": 2}, marker={"size": 6},
            hovertemplate="%{x:,} tokens: <b>%{y:.3f}</b><extra>held out</extra>",
        )  # fmt: skip
    found.update_xaxes(title_text="tokens read")
    found.update_yaxes(title_text="loss, nats")
    return found


def accuracy_curves(
    accuracy: pd.DataFrame,
    ngram: Mapping[int, float],
    *,
    rank: str,
    theme: ThemeName = "light",
) -> go.Figure:
    """How often held-out guesses are right over tokens, a line for each offset.

    `accuracy` has `tokens`, `offset` and the column that `rank` names (`top1` or `top5`), as
    shares; `ngram` has an n-gram's share by offset, dotted in the colour of its offset.
    """
    if accuracy.empty:
        return look.empty(theme, "Held-out text has not been looked at yet.")
    found = look.figure(theme)
    ends = (accuracy["tokens"].min(), accuracy["tokens"].max())
    names = accuracy["offset"].map(lambda offset: f"+{offset}")
    for name, style, part in look.parts(accuracy.assign(name=names), theme, by="name"):
        found.add_scatter(
            x=part["tokens"].to_numpy(), y=part[rank].to_numpy(float), mode="lines+markers",
            name=name, line={"color": style.colour, "width": 2},
            marker={"symbol": style.symbol, "size": 7},
            hovertemplate="%{x:,} tokens: <b>%{y:.1%}</b><extra>" + name + "</extra>",
        )  # fmt: skip
        share = ngram.get(int(part["offset"].iloc[0]))
        if share is not None:
            _ngram_line(found, share, name=name, colour=style.colour, ends=ends)
    found.update_xaxes(title_text="tokens read")
    found.update_yaxes(title_text="right", tickformat=".0%", rangemode="tozero")
    return found


def accuracy_bars(card: pd.DataFrame, *, theme: ThemeName = "light") -> go.Figure:
    """A head's card as a small chart: first guess and first five by offset.

    `card` has `offset`, `top1` and `top5` as shares, and `ngram` where one was measured.
    """
    if card.empty:
        return look.empty(theme, "Its card has no accuracies.")
    palette = THEMES[theme]
    found = look.figure(theme, height=_SMALL, barmode="overlay", bargap=0.3)
    places = [f"+{offset}" for offset in card["offset"]]
    for column, name, fill, stroke in (
        ("top5", "in the first five", palette.other_fill, palette.other),
        ("top1", "first guess", palette.accepted, palette.accepted),
    ):
        found.add_bar(
            x=places, y=card[column].to_numpy(float), name=name,
            marker={"color": fill, "line": {"color": stroke, "width": 1}},
            hovertemplate="%{x}: <b>%{y:.1%}</b><extra>" + name + "</extra>",
        )  # fmt: skip
    if "ngram" in card and card["ngram"].notna().any():
        found.add_scatter(
            x=places, y=card["ngram"].to_numpy(float), mode="markers", name="n-gram",
            marker={"symbol": "line-ew-open", "size": 22, "color": palette.bonus,
                    "line": {"width": 2.5}},
            hovertemplate="%{x}: <b>%{y:.1%}</b><extra>n-gram</extra>",
        )  # fmt: skip
    told = [f"{place}<br><b>{top1:.0%}</b> · {top5:.0%}" for place, top1, top5
            in zip(places, card["top1"], card["top5"], strict=True)]  # fmt: skip
    # a category: else "+2" is read as a number
    found.update_xaxes(type="category", tickvals=places, ticktext=told)
    found.update_yaxes(tickformat=".0%", range=[0, 1], tickvals=[0, 0.5, 1])
    return found


def _ngram_line(
    found: go.Figure, share: float, *, name: str, colour: str, ends: tuple[float, float]
) -> None:
    """A dotted line over the width of the curves."""
    found.add_scatter(
        x=list(ends), y=[share, share], mode="lines", name="n-gram", legendgroup="n-gram",
        showlegend=not any(trace.name == "n-gram" for trace in found.data),
        line={"color": colour, "width": 1.5, "dash": "dot"}, legendrank=2000,
        hovertemplate="<b>%{y:.1%}</b><extra>n-gram " + name + "</extra>",
    )  # fmt: skip
