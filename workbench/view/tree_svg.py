"""A laid-out draft tree as SVG text: for files, and for reports without a script.

The picture is the page's own, box for box: `layout` places it, and the shapes, strokes and signs
are those of `tree_component`, so that no fate is told by colour alone. Hovering a box shows its
facts, as a title.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from workbench.view.layout import BOX_HEIGHT
from workbench.view.theme import LIGHT, Theme

SIGNS = {"rejected": "✕", "bonus": "+", "correction": "≠", "pruned": "–"}
#: kinds in the order of a legend, with the word for each
LEGEND = {
    "accepted": "accepted",
    "bonus": "bonus",
    "correction": "correction",
    "rejected": "rejected",
    "not-reached": "not reached",
    "pruned": "pruned",
    "fold": "folded away",
}
#: takes its colours from the CSS variables of a report, and so follows its theme
FROM_CSS = Theme(
    **{name: f"var(--{name.replace('_', '-')})" for name in Theme.__dataclass_fields__}
    | {"background": "var(--ground)", "other_fill": "var(--soft)"}
)

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PAD = 8.0
_COUNT = 26.0  # room for the number of dropped nodes behind a box of the last column
_FONT = "'Source Code Pro', ui-monospace, Menlo, Consolas, monospace"
_PULLED = 0.55  # how far an edge goes level before it bends
_QUIET = ("rejected", "not-reached", "pruned", "fold")
_BOX_DASHES = {"not-reached": "4 3", "pruned": "1 3", "correction": "0.1 4"}
_EDGE_DASHES = {
    "bonus": "6 3",
    "correction": "0.1 4.5",
    "not-reached": "4 3",
    "pruned": "1 3",
    "fold": "1 3",
}
_BOX_WIDTHS = {"accepted": 1.8, "bonus": 1.6, "correction": 2.0, "fold": 0.0}
_EDGE_WIDTHS = {"accepted": 2.6, "bonus": 2.2, "correction": 2.2}
_RADII = {"bonus": 12, "correction": 12, "fold": 12, "pruned": 0}


def tree_svg(
    laid_out: dict[str, Any],
    *,
    theme: Theme = LIGHT,
    label: str = "Draft tree",
    ground: bool = True,
) -> str:
    """What `layout` returned, as one `<svg>` element that needs nothing else.

    `label` names it for those who cannot see it. `ground` paints the panel behind it.
    """
    width = laid_out["width"] + 2 * _PAD + (_COUNT if any(laid_out["hidden"]) else 0)
    height = laid_out["height"] + 2 * _PAD
    boxes = range(len(laid_out["node"]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_PAD:g} {-_PAD:g} {width:g} '
        f'{height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'font-family="{_FONT}" font-size="12">',
        f"<title>{_text(label)}</title>",
    ]
    if ground:
        parts.append(
            f'<rect x="{-_PAD:g}" y="{-_PAD:g}" width="{width:g}" height="{height:g}" '
            f'fill="{theme.panel}"/>'
        )
    parts += [_edge(laid_out, box, theme) for box in boxes if laid_out["up"][box] >= 0]
    parts += [_box(laid_out, box, theme) for box in boxes]
    return "".join([*parts, "</svg>"])


def _edge(tree: dict[str, Any], box: int, theme: Theme) -> str:
    kind, up = tree["kind"][box], tree["up"][box]
    left, right = tree["x"][up] + tree["w"][up], tree["x"][box]
    bend = (right - left) * _PULLED
    path = (
        f"M{left:g} {tree['y'][up]:g}C{left + bend:g} {tree['y'][up]:g} "
        f"{right - bend:g} {tree['y'][box]:g} {right:g} {tree['y'][box]:g}"
    )
    stroke = theme.stroke(kind)
    return (
        f'<path d="{path}" fill="none" stroke="{stroke}" '
        f'stroke-width="{_EDGE_WIDTHS.get(kind, 1)}"{_dash(_EDGE_DASHES.get(kind))}/>'
    )


def _box(tree: dict[str, Any], box: int, theme: Theme) -> str:
    kind, width = tree["kind"][box], tree["w"][box]
    left, top = tree["x"][box], tree["y"][box] - BOX_HEIGHT / 2
    fill = theme.other_fill if kind == "fold" else "none" if kind == "pruned" else theme.fill(kind)
    ink = theme.mute if kind in _QUIET else theme.ink
    parts = [
        f'<g transform="translate({left:g} {top:g})"><title>{_text(_facts(tree, box))}</title>',
        f'<rect width="{width:g}" height="{BOX_HEIGHT:g}" rx="{_RADII.get(kind, 6)}" fill="{fill}" '
        f'stroke="{theme.stroke(kind)}" stroke-width="{_BOX_WIDTHS.get(kind, 1.2)}"'
        f"{_dash(_BOX_DASHES.get(kind))}/>",
    ]
    probability = tree["p_draft"][box]
    if probability is not None:
        parts.append(
            f'<rect x="3" y="20" width="{max(1.0, (width - 6) * probability):.4g}" height="2.6" '
            f'rx="1.3" fill="{theme.stroke(kind)}" opacity="0.8"/>'
        )
    parts.append(
        f'<text x="9" y="15.5" fill="{ink}" xml:space="preserve">{_text(tree["label"][box])}</text>'
    )
    if sign := SIGNS.get(kind):
        parts.append(f'<text x="{width - 16:g}" y="15.5" font-size="11" fill="{ink}">{sign}</text>')
    if tree["hidden"][box] and kind != "fold":
        parts.append(
            f'<text x="{width + 5:g}" y="7" font-size="10" fill="{theme.mute}">'
            f"–{tree['hidden'][box]}</text>"
        )
    return "".join([*parts, "</g>"])


def _facts(tree: dict[str, Any], box: int) -> str:
    kind = tree["kind"][box]
    lines = [f"{tree['piece'][box]}  {LEGEND.get(kind, kind)}"]
    if tree["token"][box] is not None:
        lines.append(f"token {tree['token'][box]}, depth {tree['depth'][box]}")
    if tree["rank"][box] is not None:
        lines.append(f"rank {tree['rank'][box] + 1} of {tree['siblings'][box]}")
    for name, word in (("p_draft", "p draft"), ("p_target", "p target")):
        if tree[name][box] is not None:
            lines.append(f"{word} {tree[name][box]:.3g}")
    lines.append(tree["reasons"][tree["why"][box]])
    return "\n".join(lines)


def _dash(dashes: str | None) -> str:
    return f' stroke-dasharray="{dashes}" stroke-linecap="round"' if dashes else ""


def _text(text: str) -> str:
    """For an element or attribute. Some characters XML does not know, not even escaped."""
    return escape(_NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)
