"""Frames and figures: right numbers, both themes, hostile labels, nothing to show."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench import figures, frames
from workbench.events import RunSummary
from workbench.figures import theme as look

HOSTILE = 'x<b>y</b><a href="https://evil.example">z</a>&amp;'


def summary(**values: object) -> RunSummary:
    base = {
        "steps": 10,
        "passes": 10,
        "emitted": 30,
        "kept": 30,
        "drafted": 40,
        "accepted": 20,
        "decode_ns": 100_000_000,
        "stages_ns": {"draft": 20_000_000, "score": 70_000_000, "unaccounted": 10_000_000},
        "histogram": [2, 3, 5],
        "tested_at_depth": [0, 10, 8],
        "accepted_at_depth": [0, 8, 4],
        "tested_at_rank": [10, 4],
        "accepted_at_rank": [11, 1],
    }
    return RunSummary(**base | values)


@pytest.fixture
def rows() -> pd.DataFrame:
    found = []
    for workload in ("code", "prose"):
        for arm, nodes, speed in (("autoregressive", 1, 1.0), (HOSTILE, 8, 1.8), ("tree", 20, 1.2)):
            found.append(
                {
                    "arm": arm,
                    "workload": workload,
                    "dtype": "float32",
                    "cache": True,
                    "execution": "eager",
                    "speedup": speed,
                    "low": speed - 0.1,
                    "high": speed + 0.2,
                    "tokens_per_second": 100 * speed,
                    "tokens_per_step": 1 + nodes / 10,
                    "acceptance_rate": 0.4 if nodes > 1 else None,
                    "repetition": 0.05,
                    "nodes": float(nodes),
                    "step_ms": 5.0,
                    "drafts": nodes > 1,
                    "finding": "pays",
                }
            )
    return pd.DataFrame(found)


@pytest.fixture
def steps() -> pd.DataFrame:
    made = []
    for arm in (HOSTILE, "tree"):
        for request in range(2):
            for step in range(20):
                made.append(
                    {
                        "arm": arm,
                        "request": request,
                        "repeat": 0,
                        "step": step,
                        "position": 100 + 3 * step,
                        "num_drafted": 3 + 4 * (step % 2),
                        "num_kept": 3,
                        "score_ns": 2_000_000 + 1_000_000 * (step % 2),
                        "wall_ns": 5_000_000,
                    }
                )
    return pd.DataFrame(made)


@pytest.fixture
def nodes() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.01, 1, 4000)
    fate = np.where(rng.uniform(size=4000) < probability, "accepted", "rejected")
    fate[:500] = "not_reached"
    return pd.DataFrame(
        {"arm": HOSTILE, "fate": fate, "draft_logprob": np.log(probability).astype(np.float32)}
    )


@pytest.fixture
def frames_by_figure(rows, steps, nodes) -> dict[str, pd.DataFrame]:
    summaries = {HOSTILE: summary(), "tree": summary()}
    costs = pd.DataFrame(
        [(HOSTILE, 3.0, 2.0, 1.6, 1.5), ("tree", 2.0, 2.1, 1.0, 0.8)],
        columns=["arm", "ideal", "scored", "drafted", "measured"],
    )
    return {
        "speedups": rows,
        "frontier": rows,
        "tokens_per_step": rows,
        "accepted_histogram": frames.accepted_histogram(summaries),
        "acceptance_by_depth": frames.acceptance_by(summaries, "depth"),
        "acceptance_by_rank": frames.acceptance_by(summaries, "rank"),
        "reliability": frames.reliability(nodes),
        "score_time": frames.score_time(steps),
        "stage_shares": frames.stage_times(summaries),
        "stage_waterfall": costs,
        "estimated_waterfall": costs,
        "predicted_against_measured": rows.assign(predicted=rows["speedup"] + 0.1).rename(
            columns={"speedup": "measured"}
        ),
        "speed_by_context": frames.speed_by_context(steps),
        "speed_over_time": frames.speed_over_time(steps),
    }


def test_there_is_a_case_for_every_figure(frames_by_figure) -> None:
    assert set(frames_by_figure) == set(figures.__all__)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", figures.__all__)
def test_every_figure_draws_in_both_themes(name, theme, frames_by_figure) -> None:
    figure = getattr(figures, name)(frames_by_figure[name], theme=theme)
    assert isinstance(figure, go.Figure)
    assert figure.data
    assert figure.layout.font.color == look.THEMES[theme].ink
    assert figure.layout.xaxis.title.text
    text = json.dumps(json.loads(figure.to_json()), ensure_ascii=False)
    assert "<a " not in text
    assert "</b>z" not in text
    assert "NaN" not in text


@pytest.mark.parametrize("name", figures.__all__)
def test_a_figure_of_nothing_says_so(name, frames_by_figure) -> None:
    figure = getattr(figures, name)(frames_by_figure[name].iloc[:0])
    assert not figure.data
    assert figure.layout.annotations[0].text.endswith(".")


def test_no_figure_is_told_by_colour_alone() -> None:
    styles = look.arm_styles([f"arm {n}" for n in range(20)], "light")
    assert len({(s.colour, s.symbol) for s in styles.values()}) == 20
    for theme in ("light", "dark"):
        assert len({s.colour for s in look.arm_styles(list("abcdefgh"), theme).values()}) == 8


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_and_marks_stand_out_from_the_ground(theme) -> None:
    ground = luminance(look.THEMES[theme].panel)
    for style in look.arm_styles(list("abcdefgh"), theme).values():
        mark = luminance(style.colour)
        low, high = sorted((ground, mark))
        assert (high + 0.05) / (low + 0.05) >= 3.0, style.colour


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_labels_are_cut_and_made_plain() -> None:
    assert look.plain("<b>&") == "&lt;b&gt;&amp;"
    assert len(look.plain("y" * 100, most=20)) == 20


def test_the_waterfall_bar_ends_at_tokens_per_step_and_is_filled_up_to_the_speedup(
    frames_by_figure,
) -> None:
    figure = figures.stage_waterfall(frames_by_figure["stage_waterfall"])
    lengths = np.sum([bar.x for bar in figure.data], axis=0)
    assert lengths[0] == pytest.approx(3.0)
    assert figure.data[0].x.tolist() == [1.5, 0.8]


def test_speedup_whiskers_reach_from_low_to_high(rows) -> None:
    figure = figures.speedups(rows)
    marks = figure.data[0]
    assert (marks.x + marks.error_x.array).tolist() == pytest.approx([1.2, 2.0, 1.4])
    assert (marks.x - marks.error_x.arrayminus).tolist() == pytest.approx([0.9, 1.7, 1.1])
    assert len(figure.data) == 2


# --- frames -------------------------------------------------------------------------------------


def test_reliability_bins_tested_nodes_alone(nodes) -> None:
    found = frames.reliability(nodes)
    assert found["count"].sum() == 3500
    assert (found["low"] <= found["share"]).all()
    assert (found["share"] <= found["high"]).all()
    inside = (found["low"] <= found["probability"]) & (found["probability"] <= found["high"])
    assert inside.sum() >= 8  # made to be calibrated


def test_a_wilson_interval_never_leaves_the_unit() -> None:
    low, high = frames.wilson(np.array([0.0, 1.0, 0.5]), np.array([3, 3, 1000]))
    assert low[0] == 0.0
    assert 0 < high[0] < 1
    assert high[1] == 1.0
    assert high[2] - low[2] == pytest.approx(0.062, abs=0.001)


def test_score_time_is_a_median_by_size(steps) -> None:
    found = frames.score_time(steps)
    tree = found[found["arm"] == "tree"]
    assert tree["nodes"].tolist() == [4, 8]
    assert tree["ms"].tolist() == [2.0, 3.0]
    assert tree["steps"].tolist() == [20, 20]


def test_speeds_are_ratios_of_sums(steps) -> None:
    slow = steps.copy()
    slow.loc[slow["step"] >= 10, "wall_ns"] = 15_000_000
    found = frames.speed_by_context(slow[slow["arm"] == "tree"], bins=2)
    assert found["tokens_per_second"].tolist() == pytest.approx([600.0, 200.0])
    over_time = frames.speed_over_time(slow[slow["arm"] == "tree"], bins=4)
    assert over_time["share"].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert over_time["tokens_per_second"].iloc[0] == pytest.approx(600.0)
    assert over_time["tokens_per_second"].iloc[-1] == pytest.approx(200.0)


def test_speed_where_all_steps_lie_at_one_position(steps) -> None:
    assert len(frames.speed_by_context(steps.assign(position=7))) == 2


def test_stage_times_are_of_a_mean_step() -> None:
    found = frames.stage_times({"a": summary()}).set_index("stage")
    assert found.loc["score", "ms"] == pytest.approx(7.0)
    assert found["share"].sum() == pytest.approx(1.0)
    assert list(found.index) == [
        "draft", "build", "score", "verify", "commit", "record", "unaccounted",
    ]  # fmt: skip


def test_merging_summaries_adds_counts_and_weighs_repetition() -> None:
    one = summary(ngrams=10, repetition=0.2)
    two = summary(ngrams=30, repetition=0.6, histogram=[1, 1, 1, 1], stages_ns={"verify": 5})
    both = frames.merge([one, two])
    assert both.steps == 20
    assert both.histogram == [3, 4, 6, 1]
    assert both.stages_ns["draft"] == 20_000_000
    assert both.stages_ns["verify"] == 5
    assert both.repetition == pytest.approx(0.5)
    assert one.histogram == [2, 3, 5]


def test_figures_take_frames_and_a_theme_alone() -> None:
    for name in figures.__all__:
        draw: Callable = getattr(figures, name)
        parameters = list(inspect.signature(draw).parameters.values())
        assert len(parameters) == 2, name
        assert parameters[1].kind is inspect.Parameter.KEYWORD_ONLY
