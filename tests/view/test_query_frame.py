"""A query's rows on the page: types, names, text that is safe, and what can be drawn."""

from __future__ import annotations

import inspect
from datetime import date
from decimal import Decimal

import pandas as pd
import pytest

from workbench.figures import quick as module
from workbench.figures.quick import MOST_GROUPS, quick
from workbench.query import Result
from workbench.view.query_frame import axes, result_frame


def result(columns: list[tuple[str, str]], rows: list[tuple]) -> Result:
    return Result([c[0] for c in columns], [c[1] for c in columns], rows, True, 0.1, 1, [])


def test_numbers_stay_numbers_and_text_is_safe():
    frame = result_frame(
        result(
            [("n", "BIGINT"), ("x", "DECIMAL(4,2)"), ("ok", "BOOLEAN"), ("t", "VARCHAR"),
             ("d", "DATE"), ("l", "INTEGER[]"), ("t", "VARCHAR")],
            [(1, Decimal("1.50"), True, "a\x1b[31m\u202e", date(2026, 1, 2), [1, 2], "b"),
             (None, None, None, None, None, None, None)],
        )
    )  # fmt: skip
    assert list(frame.columns) == ["n", "x", "ok", "t", "d", "l", "t (2)"]
    assert frame["n"].tolist()[0] == 1
    assert frame["x"].tolist()[0] == 1.5
    assert frame.loc[0, "t"] == "a\\x1b[31m\\u202e"
    assert frame.loc[0, "d"] == "2026-01-02"
    assert frame.loc[0, "l"] == "[1, 2]"
    assert frame.loc[1].isna().all()


def test_the_natural_chart_of_a_grouped_query():
    frame = result_frame(
        result(
            [("arm", "VARCHAR"), ("depth", "INTEGER"), ("tested", "BIGINT"), ("share", "DOUBLE")],
            [("a", 1, 9, 0.5), ("a", 2, 4, 0.25), ("b", 1, 9, 0.7), ("b", 2, 5, 0.6)],
        )
    )
    found = axes(frame)
    assert found is not None
    assert (found.x[0], found.y[0], found.by[0]) == ("depth", "share", "arm")
    assert (
        axes(result_frame(result([("a", "VARCHAR"), ("b", "VARCHAR")], [("x", "y")] * 3))) is None
    )
    assert axes(result_frame(result([("n", "BIGINT")], [(1,), (2,)]))) is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_by_group_and_bars_for_words(theme):
    frame = pd.DataFrame(
        {"arm": ["<b>a</b>", "<b>a</b>", "b"], "depth": [2, 1, 1], "share": [0.2, 0.5, 0.7]}
    )
    lines = quick(frame, x="depth", y="share", by="arm", theme=theme)
    assert [trace.name for trace in lines.data] == ["&lt;b&gt;a&lt;/b&gt;", "b"]
    assert list(lines.data[0].x) == [1, 2]
    assert list(lines.data[0].y) == [0.5, 0.2]
    bars = quick(frame, x="arm", y="share", theme=theme)
    assert bars.data[0].type == "bar"
    assert bars.data[0].x[0] == "&lt;b&gt;a&lt;/b&gt;"
    assert not bars.data[0].showlegend


def test_too_many_groups_and_nothing_at_all():
    frame = pd.DataFrame({"g": list("abcdefghijkl") * 2, "x": range(24), "y": range(24)})
    assert len(quick(frame, x="x", y="y", by="g").data) == MOST_GROUPS
    empty = pd.DataFrame({"x": [None, 1.0], "y": [1.0, None]})
    assert "Nothing to draw" in quick(empty, x="x", y="y").layout.annotations[0].text
    assert "streamlit" not in inspect.getsource(module)
