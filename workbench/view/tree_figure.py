"""The drawn tree as a Plotly figure, for reports: the same layout as on the page."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.graph_objects as go

from workbench.view.layout import BOX_HEIGHT
from workbench.view.theme import LIGHT, Theme

KINDS = ("root", "accepted", "bonus", "correction", "rejected", "not-reached", "pruned", "fold")
_DASHES = {"correction": "dot", "not-reached": "dash", "pruned": "dot", "fold": "dot"}
_EDGE_DASHES = {**_DASHES, "bonus": "dash"}
_SIGNS = {"rejected": " ✕", "bonus": " +", "correction": " ≠", "pruned": " –"}
_ON_PATH = ("accepted", "bonus", "correction")
_MARGIN = 12


def tree_figure(laid_out: dict[str, Any], *, theme: Theme = LIGHT) -> go.Figure:
    """Draw what `layout` returned. One trace per kind for edges, boxes and probability bars.

    All token text is escaped: Plotly would read tags in it.
    """
    figure = go.Figure()
    kinds = [kind for kind in KINDS if kind in laid_out["kind"]]
    for kind in kinds:
        _add_edges(figure, laid_out, kind, theme)
    for kind in kinds:
        _add_boxes(figure, laid_out, kind, theme)
        _add_bars(figure, laid_out, kind, theme)
    _add_labels(figure, laid_out, theme)
    width, height = laid_out["width"], laid_out["height"]
    figure.update_layout(
        paper_bgcolor=theme.panel,
        plot_bgcolor=theme.panel,
        font={"color": theme.ink, "size": 12},
        margin=dict.fromkeys("lrtb", 8),
        height=int(height) + 70,
        legend={"orientation": "h", "y": 0, "yanchor": "top"},
        hoverlabel={"align": "left", "font": {"family": "monospace"}},
    )
    figure.update_xaxes(visible=False, range=[-_MARGIN, width + _MARGIN])
    figure.update_yaxes(
        visible=False, range=[height + _MARGIN, -_MARGIN], scaleanchor="x", scaleratio=1
    )
    return figure


def _of_kind(laid_out: dict[str, Any], kind: str) -> list[int]:
    return [box for box, its in enumerate(laid_out["kind"]) if its == kind]


def _add_edges(figure: go.Figure, tree: dict[str, Any], kind: str, theme: Theme) -> None:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for box in _of_kind(tree, kind):
        up = tree["up"][box]
        if up >= 0:
            bend = tree["x"][box] - 14
            xs += [tree["x"][up] + tree["w"][up], bend, tree["x"][box], None]
            ys += [tree["y"][up], tree["y"][box], tree["y"][box], None]
    if not xs:
        return
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        line={
            "color": theme.stroke(kind),
            "width": 2.6 if kind in _ON_PATH else 1,
            "dash": _EDGE_DASHES.get(kind, "solid"),
        },
    )


def _add_boxes(figure: go.Figure, tree: dict[str, Any], kind: str, theme: Theme) -> None:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for box in _of_kind(tree, kind):
        left, right = tree["x"][box], tree["x"][box] + tree["w"][box]
        top, bottom = tree["y"][box] - BOX_HEIGHT / 2, tree["y"][box] + BOX_HEIGHT / 2
        xs += [left, right, right, left, left, None]
        ys += [top, top, bottom, bottom, top, None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        fill="toself",
        fillcolor=theme.fill(kind),
        hoverinfo="skip",
        name=kind.replace("-", " ") + _SIGNS.get(kind, ""),
        line={
            "color": theme.stroke(kind),
            "width": 2 if kind in _ON_PATH else 1.2,
            "dash": _DASHES.get(kind, "solid"),
        },
    )


def _add_bars(figure: go.Figure, tree: dict[str, Any], kind: str, theme: Theme) -> None:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for box in _of_kind(tree, kind):
        p = tree["p_draft"][box]
        if p is not None:
            left, level = tree["x"][box] + 3, tree["y"][box] + BOX_HEIGHT / 2 - 2.5
            xs += [left, left + (tree["w"][box] - 6) * p, None]
            ys += [level, level, None]
    if xs:
        line = {"color": theme.stroke(kind), "width": 3}
        figure.add_scatter(x=xs, y=ys, mode="lines", hoverinfo="skip", showlegend=False, line=line)


def _add_labels(figure: go.Figure, tree: dict[str, Any], theme: Theme) -> None:
    boxes = range(len(tree["node"]))
    figure.add_scatter(
        x=[tree["x"][box] + tree["w"][box] / 2 for box in boxes],
        y=[tree["y"][box] for box in boxes],
        mode="text",
        text=[escape(tree["label"][box]) + _SIGNS.get(tree["kind"][box], "") for box in boxes],
        textfont={"family": "Source Code Pro, monospace", "size": 11, "color": theme.ink},
        hovertext=[_hover(tree, box) for box in boxes],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _hover(tree: dict[str, Any], box: int) -> str:
    lines = [f"<b>{escape(tree['piece'][box])}</b>  {tree['kind'][box]}"]
    if tree["token"][box] is not None:
        lines.append(f"token {tree['token'][box]}, depth {tree['depth'][box]}")
    if tree["rank"][box] is not None:
        lines.append(f"rank {tree['rank'][box] + 1} of {tree['siblings'][box]}")
    for name, label in (("p_draft", "p draft"), ("p_target", "p target")):
        if tree[name][box] is not None:
            lines.append(f"{label} {tree[name][box]:.3g}")
    lines.append(escape(tree["reasons"][tree["why"][box]]))
    return "<br>".join(lines)
