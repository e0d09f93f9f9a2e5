"""Derived times against what is known of the models and the device."""

from __future__ import annotations

import numpy as np
import pytest

from engine.serving.simulate.roofline import H100, LLAMA_1B, LLAMA_8B, LLAMA_70B, Roofline


@pytest.mark.parametrize(
    ("model", "billions"),
    # parameters as published, less the embeddings where they are not shared with the head
    [(LLAMA_1B, 1.24), (LLAMA_8B, 8.03 - 0.525), (LLAMA_70B, 70.6 - 1.05)],
)
def test_models_have_their_size(model, billions):
    assert model.weights / 1e9 == pytest.approx(billions, rel=0.01)


def test_a_few_rows_cost_what_reading_the_weights_does():
    costs = Roofline(LLAMA_8B, LLAMA_1B)
    one, few, many = costs.score_ms(np.array([1, 32, 4096]), 1, 100.0)
    assert one == pytest.approx(15.0e9 / (3.35e12 * 0.75) * 1e3 + H100.launch_ms, rel=0.02)
    assert few == one
    assert many == pytest.approx(4096 * 15.0e9 / (989e12 * 0.6) * 1e3, rel=0.03)


def test_cache_is_read_for_each_request():
    costs = Roofline(LLAMA_8B, LLAMA_1B)
    alone, together = (float(costs.score_ms(np.array([1]), b, 2048.0)[0]) for b in (1, 65))
    assert LLAMA_8B.cache_bytes == 131_072
    assert together - alone == pytest.approx(64 * 2048 * 131_072 / (3.35e12 * 0.75) * 1e3, rel=0.01)


def test_more_gpus_read_less_and_talk():
    one = Roofline(LLAMA_70B, LLAMA_1B).score_ms(np.array([1]), 1, 10.0)[0]
    four = Roofline(LLAMA_70B, LLAMA_1B, gpus=4).score_ms(np.array([1]), 1, 10.0)[0]
    assert one / 4 < four < one / 2
    assert four - (one - H100.launch_ms) / 4 - H100.launch_ms == pytest.approx(
        2 * 80 * H100.all_reduce_ms, rel=0.05
    )


def test_drafting_is_the_sum_of_its_passes():
    costs = Roofline(LLAMA_8B, LLAMA_1B)
    one = costs.draft_ms([4], 4, 64.0)
    assert costs.draft_ms([4, 4, 4], 4, 64.0) == pytest.approx(3 * one)
    assert costs.draft_ms([], 4, 64.0) == 0.0
    assert costs.prefill_ms(2000) > costs.prefill_ms(10)


def test_it_says_that_it_was_not_measured():
    assert Roofline(LLAMA_70B, LLAMA_1B, gpus=4).said == (
        "derived, not measured: Llama 3.1 70B with Llama 3.2 1B on H100 SXM over 4, roofline"
    )
