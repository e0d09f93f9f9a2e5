"""Colours of fates and stages in both themes, for figures and reports.

The pages take the same colours from `.streamlit/config.toml`. Kinds are told apart by shape and
stroke as well, so that nothing is said by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThemeName = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours as #rrggbb."""

    background: str
    panel: str
    ink: str
    mute: str
    line: str
    accepted: str
    accepted_fill: str
    bonus: str
    bonus_fill: str
    correction: str
    correction_fill: str
    other: str  # rejected, not reached, pruned, folded
    other_fill: str
    draft: str

    def stroke(self, kind: str) -> str:
        """The line colour of a box of this kind."""
        return {
            "accepted": self.accepted,
            "bonus": self.bonus,
            "correction": self.correction,
            "root": self.ink,
        }.get(kind, self.other)

    def fill(self, kind: str) -> str:
        """The ground of a box of this kind; what was not taken stays empty."""
        return {
            "accepted": self.accepted_fill,
            "bonus": self.bonus_fill,
            "correction": self.correction_fill,
            "root": self.other_fill,
        }.get(kind, self.panel)


LIGHT = Theme(
    background="#fbfbf9",
    panel="#ffffff",
    ink="#1d2433",
    mute="#6b7385",
    line="#e0e3e8",
    accepted="#00795a",
    accepted_fill="#d9f0e8",
    bonus="#a85d00",
    bonus_fill="#fbe8cc",
    correction="#8a3a78",
    correction_fill="#f4dfee",
    other="#858d9b",
    other_fill="#f2f3f1",
    draft="#3d6fd6",
)

DARK = Theme(
    background="#12151c",
    panel="#191d26",
    ink="#e8ebf1",
    mute="#949cae",
    line="#2a303c",
    accepted="#3ec79f",
    accepted_fill="#153a31",
    bonus="#f0b45c",
    bonus_fill="#40301a",
    correction="#dd92c9",
    correction_fill="#3a2336",
    other="#78818f",
    other_fill="#20252f",
    draft="#7ea4f5",
)

THEMES: dict[ThemeName, Theme] = {"light": LIGHT, "dark": DARK}
