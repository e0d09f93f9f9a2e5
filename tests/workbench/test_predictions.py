"""Live estimates against measured speedups, and the waterfall of a run alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.events import RunSummary
from workbench.figures import predicted_against_measured, stage_waterfall
from workbench.predictions import estimated_waterfalls, predictions
from workbench.report.estimates import prediction_chart, waterfall_chart
from workbench.statistics import Interval

HOSTILE = "<b>arm</b>"


def summary(**changed: object) -> RunSummary:
    values = {
        "steps": 10, "passes": 10, "emitted": 30, "kept": 30, "drafted": 40, "accepted": 20,
        "decode_ns": 100_000_000, "stages_ns": {"draft": 20_000_000, "score": 70_000_000},
    }  # fmt: skip
    return RunSummary(**values | changed)  # type: ignore[arg-type]


def row(method: str, run_id: str, value: float, *, drafts: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        method=method, workload="code", run_id=run_id, drafts=drafts,
        speedup=Interval(value, value - 0.1, value + 0.2),
    )  # fmt: skip


ROWS = [row("plain", "p", 1.0, drafts=False), row(HOSTILE, "a", 1.2), row("other", "b", 2.0)]


def test_the_estimate_stands_beside_what_was_measured():
    found = predictions(ROWS, {"a": summary(), "b": summary()}, {"a": 5_000_000, "b": None})
    # tau 3, a plain step of 5 ms, a step of 10 ms
    assert found.to_dict("records") == [
        {"arm": HOSTILE, "workload": "code", "predicted": 1.5, "measured": 1.2,
         "low": pytest.approx(1.1), "high": pytest.approx(1.4)}
    ]  # fmt: skip
    (chart,) = prediction_chart(
        ROWS, {"a": summary()}, {"a": 5_000_000}, arms=["plain", HOSTILE, "other"]
    )
    assert chart.reading == (
        f"The estimate a run shows while it goes on lies at most 25% above the measured speedup "
        f"({HOSTILE})."
    )
    assert prediction_chart(ROWS, {}, {}, arms=[]) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_mark_for_each_and_a_line_where_estimates_are_right(theme):
    found = predictions(ROWS, {"a": summary(), "b": summary()}, {"a": 5_000_000, "b": 6_000_000})
    figure = predicted_against_measured(found, theme=theme)
    line, one, other = figure.data
    assert list(line.x) == list(line.y)
    assert (list(one.x), list(one.y)) == ([1.5], [1.2])
    assert (list(other.x), list(other.y)) == ([pytest.approx(1.8)], [2.0])
    assert one.name == "&lt;b&gt;arm&lt;/b&gt;"
    assert one.error_y.array[0] == pytest.approx(0.2)
    low, high = figure.layout.xaxis.range
    assert low < 1.0 < 2.2 < high
    empty = predicted_against_measured(found.head(0), theme=theme)
    assert "No arm" in empty.layout.annotations[0].text


def test_a_run_alone_gets_an_estimated_waterfall():
    found = estimated_waterfalls(
        {"a": summary(), "plain": summary(drafted=0), "untimed": summary()},
        {"a": 5_000_000, "plain": 5_000_000, "untimed": None},
    )
    (line,) = found.to_dict("records")
    assert line["arm"] == "a"
    assert line["ideal"] == 3.0
    assert line["scored"] == pytest.approx(3 * 5 / 7)
    assert line["drafted"] == pytest.approx(3 * 5 / 9)
    assert line["measured"] == pytest.approx(1.5)
    (chart,) = waterfall_chart({"a": summary()}, {"a": 5_000_000})
    assert "not a measured speedup" in chart.reading
    names = [trace.name for trace in chart.draw("light").data]
    assert names[0] == "estimated"
    assert stage_waterfall(found).data[0].name == "measured speedup"
    assert waterfall_chart({"plain": summary(drafted=0)}, {"plain": 1}) == []
