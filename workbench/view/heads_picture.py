"""What heads are, in three small drawings: SVG in the colours of the page's theme."""

from __future__ import annotations

from typing import NamedTuple

from workbench.view.theme import THEMES, Theme, ThemeName


class Explained(NamedTuple):
    """A kind of head in words."""

    title: str
    text: str


EXPLAINED = {
    "medusa": Explained(
        "Medusa",
        "Small heads on the target's last hidden state each guess a token further ahead, all at "
        "once. Their best guesses make a tree that one pass of the target judges.",
    ),
    "kangaroo": Explained(
        "Kangaroo",
        "The target's first layers and a trained adapter draft token after token, and stop where "
        "they are unsure. The remaining layers judge the draft from the states that are there.",
    ),
    "eagle": Explained(
        "EAGLE",
        "One small layer guesses the target's next hidden states from its last ones and feeds on "
        "its own guesses, so that it can grow a tree of any depth.",
    ),
}
_WIDTH, _HEIGHT = 300, 168
_LAYERS = 5
_FONT = "system-ui, sans-serif"  # an image has no fonts of its page


def picture(kind: str, theme: ThemeName) -> str:
    """The drawing of a kind as an SVG that needs nothing else."""
    palette = THEMES[theme]
    drawn = {"medusa": _medusa, "kangaroo": _kangaroo, "eagle": _eagle}[kind](palette)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="{_FONT}" font-size="12" '
        f'fill="{palette.ink}">{"".join(drawn)}</svg>'
    )


def _medusa(palette: Theme) -> list[str]:
    parts = _target(palette, lit=range(_LAYERS))
    parts += [_path(palette.accepted, "M112 35 H140 V119")]
    for at, name in enumerate(("+2", "+3", "+4")):
        y = 22 + 42 * at
        parts += [_line(palette.accepted, 140, y + 13, 168, y + 13),
                  _tip(palette.accepted, 168, y + 13)]  # fmt: skip
        parts += [_box(palette.accepted, palette.accepted_fill, 170, y, 62, 26, f"head {at + 1}")]
        parts += [_line(palette.draft, 232, y + 13, 256, y + 13), _tip(palette.draft, 256, y + 13)]
        parts += [_text(palette.draft, 278, y + 17, name, bold=True)]
    parts += [_text(palette.mute, 201, 160, "guesses by offset")]
    return parts


def _kangaroo(palette: Theme) -> list[str]:
    parts = _target(palette, lit=range(2))
    parts += [_line(palette.accepted, 112, 110, 150, 110), _tip(palette.accepted, 150, 110)]
    parts += [_box(palette.accepted, palette.accepted_fill, 152, 96, 68, 28, "adapter")]
    parts += [_line(palette.draft, 220, 110, 252, 110), _tip(palette.draft, 252, 110)]
    parts += [_text(palette.draft, 276, 114, "draft", bold=True)]
    parts += [_path(palette.draft, "M276 122 V150 H64"), _line(palette.draft, 64, 150, 64, 146),
              _tip(palette.draft, 64, 145, up=True)]  # fmt: skip
    parts += [_text(palette.mute, 170, 165, "again, while it is sure")]
    parts += [_path(palette.other, "M276 98 V44 H114", dash=True), _tip(palette.other, 114, 44,
              back=True)]  # fmt: skip
    parts += [_text(palette.mute, 196, 37, "the rest judges")]
    return parts


def _eagle(palette: Theme) -> list[str]:
    parts = _target(palette, lit=range(_LAYERS))
    for y in (34, 72, 110):
        parts += [_line(palette.accepted, 112, y, 150, 72 + (y - 72) * 0.25)]
    parts += [_tip(palette.accepted, 150, 72)]
    parts += [_box(palette.accepted, palette.accepted_fill, 152, 56, 60, 32, "layer")]
    parts += [_path(palette.draft, "M166 56 C166 22 200 22 200 52"),
              _tip(palette.draft, 200, 55, down=True)]  # fmt: skip
    parts += [_text(palette.mute, 183, 20, "its own guesses")]
    for x, y, to in ((228, 72, ((252, 44), (252, 100))), (252, 44, ((280, 28), (280, 60))),
                     (252, 100, ((280, 100),))):  # fmt: skip
        parts += [_line(palette.draft, x, y, *end) for end in to]
    parts += [_line(palette.draft, 212, 72, 228, 72)]
    for x, y in ((228, 72), (252, 44), (252, 100), (280, 28), (280, 60), (280, 100)):
        parts += [f'<circle cx="{x}" cy="{y}" r="6" fill="{palette.panel}" '
                  f'stroke="{palette.draft}" stroke-width="2"/>']  # fmt: skip
    parts += [_text(palette.mute, 240, 160, "a tree")]
    return parts


def _target(palette: Theme, *, lit: range) -> list[str]:
    """The target's layers from the bottom up; those that draft are lit."""
    parts = []
    for at in range(_LAYERS):
        y = 24 + 24 * (_LAYERS - 1 - at)
        stroke = palette.ink if at in lit else palette.other
        dash = "" if at in lit else ' stroke-dasharray="3 3"'
        parts.append(
            f'<rect x="16" y="{y}" width="96" height="20" rx="4" fill="{palette.other_fill}" '
            f'stroke="{stroke}" stroke-width="1.2"{dash}/>'
        )
    return [*parts, _text(palette.mute, 64, 16, "target")]


def _box(stroke: str, fill: str, x: int, y: int, width: int, height: int, label: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.6"/>'
        f'<text x="{x + width / 2}" y="{y + height / 2 + 4}" text-anchor="middle">{label}</text>'
    )


def _line(colour: str, x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{colour}" stroke-width="1.6"/>'


def _path(colour: str, d: str, *, dash: bool = False) -> str:
    dashed = ' stroke-dasharray="4 3"' if dash else ""
    return f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="1.6"{dashed}/>'


def _tip(
    colour: str, x: float, y: float, *, up: bool = False, down: bool = False, back: bool = False
) -> str:
    """The point of an arrow at (x, y); to the right unless said otherwise."""
    ends = [(-8, -4), (-8, 4)]
    if up:
        ends = [(-4, 8), (4, 8)]
    if down:
        ends = [(-4, -8), (4, -8)]
    if back:
        ends = [(8, -4), (8, 4)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in [(0, 0), *ends])
    return f'<polygon points="{points}" fill="{colour}"/>'


def _text(colour: str, x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="middle" fill="{colour}"{weight}>{text}</text>'
