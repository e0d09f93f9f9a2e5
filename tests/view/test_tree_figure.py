"""The Plotly twin draws every box once and escapes what it shows."""

import numpy as np
import pytest
from scripted_runs import random_step

from workbench.view.steps import step_layout
from workbench.view.theme import DARK, LIGHT
from workbench.view.tree_figure import tree_figure


@pytest.mark.parametrize("num_nodes", [1, 2, 9, 40])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_box_has_an_outline_and_a_label(num_nodes: int, theme):
    laid_out = step_layout(
        random_step(np.random.default_rng(3), 0, num_nodes, num_pruned=3), pruned=True
    )
    figure = tree_figure(laid_out, theme=theme)
    outlines = sum(list(trace.x).count(None) for trace in figure.data if trace.fill == "toself")
    (labels,) = [trace for trace in figure.data if trace.mode == "text"]
    assert outlines == len(labels.text) == len(laid_out["node"])
    kinds = {trace.name.split(" ")[0] for trace in figure.data if trace.fill == "toself"}
    assert len(kinds) == len(set(laid_out["kind"]))


def test_kinds_differ_in_more_than_colour():
    laid_out = step_layout(random_step(np.random.default_rng(5), 0, 40, num_pruned=3), pruned=True)
    figure = tree_figure(laid_out)
    boxes = {trace.name: trace for trace in figure.data if trace.fill == "toself"}
    assert boxes["not reached"].line.dash != boxes["rejected ✕"].line.dash
    assert boxes["accepted"].line.width > boxes["rejected ✕"].line.width


def test_markup_in_tokens_is_text():
    step = random_step(np.random.default_rng(1), 0, 4)
    step.pieces_M[1] = "<b>x</b>"
    figure = tree_figure(step_layout(step))
    (labels,) = [trace for trace in figure.data if trace.mode == "text"]
    shown = [*labels.text, *labels.hovertext]
    assert sum("&lt;b&gt;x&lt;/b&gt;" in text for text in shown) >= 2
    assert not any("<b>x" in text.removeprefix("<b>") for text in shown)
