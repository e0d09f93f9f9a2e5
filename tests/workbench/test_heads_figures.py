"""Figures of trainings: what is drawn for which numbers, and for none."""

from __future__ import annotations

import pandas as pd
import pytest

from workbench.figures.heads import accuracy_bars, accuracy_curves, loss_curve
from workbench.figures.tuning import speed_against_acceptance

STEPS = pd.DataFrame({"tokens": [1024, 2048, 4096], "loss": [7.0, 6.0, 5.5]})
LOOKS = pd.DataFrame(
    [
        {"tokens": tokens, "offset": offset, "top1": 0.1 * at / (offset - 1), "top5": 0.2 * at}
        for at, tokens in enumerate((1024, 4096), start=1)
        for offset in (2, 3)
    ]
)
CARD = pd.DataFrame({"offset": [2, 3], "top1": [0.5, 0.3], "top5": [0.8, 0.5],
                     "ngram": [0.3, None]})  # fmt: skip


def test_the_loss_of_steps_and_of_held_out_text() -> None:
    drawn = loss_curve(STEPS, STEPS.iloc[1:])
    assert [trace.name for trace in drawn.data] == ["training", "held out"]
    assert list(drawn.data[0].y) == [7.0, 6.0, 5.5]
    assert loss_curve(STEPS.iloc[:1], STEPS.iloc[:0]).data[0].mode == "markers", "one is no line"
    assert "No step" in loss_curve(STEPS.iloc[:0], STEPS.iloc[:0]).layout.annotations[0].text


def test_a_line_for_each_offset_and_the_ngram_in_its_colour() -> None:
    drawn = accuracy_curves(LOOKS, {2: 0.15}, rank="top1")
    curves = [trace for trace in drawn.data if trace.name != "n-gram"]
    assert [trace.name for trace in curves] == ["+2", "+3"]
    assert list(curves[1].y) == pytest.approx([0.05, 0.1])
    (ngram,) = [trace for trace in drawn.data if trace.name == "n-gram"]
    assert list(ngram.y) == [0.15, 0.15]
    assert ngram.line.color == curves[0].line.color
    assert ngram.line.dash == "dot"
    assert "not been looked at" in accuracy_curves(
        LOOKS.iloc[:0], {}, rank="top1"
    ).layout.annotations[0].text  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_card_in_small(theme) -> None:
    drawn = accuracy_bars(CARD, theme=theme)
    assert [trace.name for trace in drawn.data] == ["in the first five", "first guess", "n-gram"]
    assert list(drawn.data[1].x) == ["+2", "+3"]
    assert list(drawn.data[1].y) == [0.5, 0.3]
    assert drawn.layout.xaxis.ticktext[0] == "+2<br><b>50%</b> · 80%"
    assert drawn.layout.xaxis.type == "category"
    assert [trace.name for trace in accuracy_bars(CARD.assign(ngram=None)).data][-1] == (
        "first guess"
    )


def test_speed_over_acceptance_marks_plain_decoding() -> None:
    trials = pd.DataFrame({"trial": [1, 2], "state": ["measured", "pruned"], "value": [1.4, 0.8],
                           "low": [1.3, None], "high": [1.5, None], "best": [True, False],
                           "tokens_per_step": [2.1, 3.0], "told": ["a", "b"]})  # fmt: skip
    drawn = speed_against_acceptance(trials)
    assert {trace.name for trace in drawn.data} == {"best", "pruned"}
    assert drawn.layout.shapes[0].y0 == 1.0
    assert "2.10 tokens per step" in str(
        next(trace for trace in drawn.data if trace.name == "best").customdata
    )
