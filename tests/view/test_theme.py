"""The palette: one in two places, readable, and safe for colour-blind eyes."""

import tomllib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from workbench.view.theme import THEMES, Theme

ROOT = Path(__file__).resolve().parents[2]
#: Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
BLINDNESS = {
    "protan": """0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216
                 -0.003882 -0.048116 1.051998""",
    "deutan": """0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413
                 -0.011820 0.042940 0.968881""",
    "tritan": """1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602
                 0.004733 0.691367 0.303900""",
}
TO_XYZ = "0.4124 0.3576 0.1805 0.2126 0.7152 0.0722 0.0193 0.1192 0.9505"


def matrix(numbers: str) -> np.ndarray:
    return np.array(numbers.split(), float).reshape(3, 3)


def linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_pages_and_the_figures_use_one_palette(name: str):
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"][name]
    theme: Theme = THEMES[name]
    pairs = {
        "backgroundColor": theme.background, "secondaryBackgroundColor": theme.panel,
        "textColor": theme.ink, "borderColor": theme.line, "greenColor": theme.accepted,
        "greenBackgroundColor": theme.accepted_fill, "orangeColor": theme.bonus,
        "orangeBackgroundColor": theme.bonus_fill, "violetColor": theme.correction,
        "violetBackgroundColor": theme.correction_fill, "grayColor": theme.other,
        "grayBackgroundColor": theme.other_fill, "blueColor": theme.draft,
    }  # fmt: skip
    assert {key: config[key] for key in pairs} == pairs


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_and_lines_stand_out(name: str):
    theme: Theme = THEMES[name]
    for ground in (theme.background, theme.panel, theme.accepted_fill, theme.bonus_fill,
                   theme.correction_fill, theme.other_fill):  # fmt: skip
        assert contrast(theme.ink, ground) >= 7
    assert contrast(theme.mute, theme.panel) >= 4.5
    for line in (theme.accepted, theme.bonus, theme.correction, theme.other, theme.draft):
        assert contrast(line, theme.panel) >= 3


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("name", ["light", "dark"])
def test_fates_stay_apart_for_colour_blind_eyes(name: str, blindness: str):
    theme: Theme = THEMES[name]
    seen = {
        key: lab(matrix(BLINDNESS[blindness]) @ linear(getattr(theme, key)))
        for key in ("accepted", "bonus", "correction", "other")
    }
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)
