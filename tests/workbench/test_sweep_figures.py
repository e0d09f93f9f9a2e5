"""Heat maps and lines of sweeps: right cells, the best one marked, what is missing said."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from workbench.figures import theme as look
from workbench.figures.sweeps import heat_map, sweep_lines

HOSTILE = 'x<b>y</b><a href="https://evil.example">z</a>'
X, Y = "option.nodes", "option.policy"


@pytest.fixture
def cells() -> pd.DataFrame:
    lines = []
    for policy, speeds in {"eagle2": (0.9, 1.4, 1.2), HOSTILE: (0.8, None, 1.1)}.items():
        for nodes, speed in zip((4, 8, 16), speeds, strict=True):
            lines.append(
                {
                    "arm": f"dynamic-tree:policy={policy},nodes={nodes}",
                    X: nodes,
                    Y: policy,
                    "speedup": speed,
                    "low": speed and speed - 0.1,
                    "high": speed and speed + 0.1,
                    "tokens_per_step": speed and 1 + nodes / 10,
                }
            )
    return pd.DataFrame(lines)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("value", ["speedup", "tokens_per_step"])
def test_a_heat_map_prints_its_values_and_stars_the_best(cells, theme, value) -> None:
    found = heat_map(cells, x=X, y=Y, value=value, theme=theme)
    (drawn,) = found.data
    texts = [text for row in drawn.text for text in row]
    assert sum(text.startswith("★") for text in texts) == 1
    best = "★ 1.40×" if value == "speedup" else "★ 2.60"
    assert best in texts
    (frame,) = found.layout.shapes
    assert frame.line.color == look.THEMES[theme].ink
    column = 1 if value == "speedup" else 2
    assert frame.x0 < column < frame.x1
    assert [note.text for note in found.layout.annotations] == ["–"], "one cell is not measured"
    assert drawn.customdata[1][1] == "not measured yet"
    assert list(found.layout.xaxis.ticktext) == ["4", "8", "16"]
    assert found.layout.xaxis.title.text == "nodes"


def test_the_middle_of_a_speedup_scale_is_as_fast_as_plain(cells) -> None:
    (drawn,) = heat_map(cells, x=X, y=Y, value="speedup").data
    assert (drawn.zmin + drawn.zmax) / 2 == pytest.approx(1.0)
    assert drawn.zmax == pytest.approx(1.4)


def test_numbers_stand_in_their_order_and_before_words() -> None:
    frame = pd.DataFrame(
        {"arm": "a", X: [16, 4, "all"], Y: ["p"] * 3, "speedup": [1.0, 2.0, 3.0], "low": 1.0,
         "high": 3.0, "tokens_per_step": 2.0}
    )  # fmt: skip
    found = heat_map(frame, x=X, y=Y, value="speedup")
    assert list(found.layout.xaxis.ticktext) == ["4", "16", "all"]
    assert [round(float(value), 1) for value in found.data[0].z[0]] == [2.0, 1.0, 3.0]


def test_lines_carry_intervals_of_speedups_only(cells) -> None:
    found = sweep_lines(cells, x=X, by=Y, value="speedup")
    assert [list(line.x) for line in found.data] == [[4, 8, 16], [4, 16]]
    assert found.data[0].error_y.array[0] == pytest.approx(0.1)
    assert found.layout.shapes, "plain decoding's line"
    plain = sweep_lines(cells, x=X, by=Y, value="tokens_per_step")
    assert plain.data[0].error_y.array is None
    words = sweep_lines(cells, x=Y, by=X, value="speedup")
    assert words.layout.xaxis.ticktext[0] == "eagle2"


def test_hostile_labels_are_text(cells) -> None:
    for found in (
        heat_map(cells, x=X, y=Y, value="speedup"),
        sweep_lines(cells, x=X, by=Y, value="speedup"),
    ):
        text = json.dumps(json.loads(found.to_json()), ensure_ascii=False)
        assert "<a " not in text
        assert "</b>z" not in text


def test_nothing_measured_is_said(cells) -> None:
    nothing = cells.assign(speedup=float("nan"))
    for found in (
        heat_map(nothing, x=X, y=Y, value="speedup"),
        sweep_lines(nothing, x=X, by=Y, value="speedup"),
        heat_map(cells[:0], x=X, y=Y, value="speedup"),
    ):
        assert found.layout.annotations[0].text == "No cell is measured yet."
