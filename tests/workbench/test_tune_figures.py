"""Figures of studies: states told apart, the best marked, hostile labels as text."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from workbench.figures.tuning import by_option, trials_over_time

HOSTILE = '<a href="https://evil.example">x</a>'


@pytest.fixture
def trials() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"trial": 1, "state": "measured", "value": 1.2, "best_so_far": 1.2, "best": False},
            {"trial": 2, "state": "pruned", "value": 0.4, "best_so_far": 1.2, "best": False},
            {"trial": 3, "state": "infeasible", "value": None, "best_so_far": 1.2, "best": False},
            {"trial": 4, "state": "measured", "value": 1.5, "best_so_far": 1.5, "best": True},
        ]
    ).assign(
        low=1.0, high=2.0, told=["a", "b", "c", HOSTILE],
        **{"option.nodes": [4, 8, 16, 2], "option.policy": ["e", HOSTILE, "e", HOSTILE],
           "option.shared": [True, False, True, True]},
    )  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_trials_stand_over_their_number_with_the_best_so_far(trials, theme) -> None:
    found = trials_over_time(trials, speed=True, theme=theme)
    by_name = {trace.name: trace for trace in found.data}
    assert list(by_name) == ["best so far", "pruned", "measured", "best"]
    assert list(by_name["best so far"].y) == [1.2, 1.2, 1.2, 1.5]
    assert (list(by_name["best"].x), list(by_name["best"].y)) == ([4], [1.5])
    assert by_name["pruned"].marker.symbol != by_name["measured"].marker.symbol
    assert "broken off" in by_name["pruned"].customdata[0]
    assert found.layout.shapes, "plain decoding's line"
    assert not trials_over_time(trials, speed=False).layout.shapes


def test_words_and_switches_have_named_ticks(trials) -> None:
    words = by_option(trials, "policy", speed=True)
    assert list(words.layout.xaxis.tickvals) == [0, 1]
    assert words.layout.xaxis.ticktext[0] == "e"
    assert list(by_option(trials, "shared", speed=True).layout.xaxis.ticktext) == ["on", "off"]
    numbers = by_option(trials, "nodes", speed=True)
    assert [list(trace.x) for trace in numbers.data] == [[8], [4], [2]]


def test_trials_in_which_an_option_did_not_matter_are_left_out(trials) -> None:
    partly = trials.assign(**{"option.most": pd.array([None, 8, None, 16], dtype="Int64")})
    numbers = by_option(partly, "most", speed=True)
    assert [list(trace.x) for trace in numbers.data] == [[8], [16]]


def test_hostile_labels_are_text(trials) -> None:
    for found in (trials_over_time(trials, speed=True), by_option(trials, "policy", speed=True)):
        assert "<a " not in json.dumps(json.loads(found.to_json()), ensure_ascii=False)


def test_nothing_measured_is_said(trials) -> None:
    nothing = trials.assign(value=float("nan"))
    for found in (trials_over_time(nothing, speed=True), by_option(nothing, "nodes", speed=True),
                  trials_over_time(trials[:0], speed=True)):  # fmt: skip
        assert found.layout.annotations[0].text == "No trial is measured yet."
