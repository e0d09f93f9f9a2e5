"""Warping agrees with transformers'; the keyed noise has the right law and the right keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from engine.sampling import Sampling, Stream, generator, gumbel, warp


@pytest.mark.parametrize("top_k", [0, 1, 5, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-6])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_warp_is_that_of_transformers(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(6, 40)) * 3
    expected = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits))
    if top_k:
        expected = TopKLogitsWarper(min(top_k, 40))(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    expected = torch.log_softmax(expected, -1).numpy()
    found = warp(logits, Sampling(temperature, top_k, top_p))
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-12)


def test_gumbel_argmax_samples_the_law():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    counts = np.zeros(4)
    for position in range(20_000):
        noise = gumbel(Sampling(1.0, seed=4), request=1, position=position, vocab_size=4)
        counts[np.argmax(np.log(p) + noise)] += 1
    chi_square = ((counts - 20_000 * p) ** 2 / (20_000 * p)).sum()
    assert chi_square < 16.3  # 99.9th percentile with 3 degrees of freedom


def test_every_key_matters_and_order_does_not():
    def draw(**changed):
        keys = {"request": 1, "position": 2, "stream": Stream.DRAFT, "root": 3, "node": 4} | changed
        return generator(Sampling(1.0, seed=5), **keys).random()

    base = draw()
    others = [
        draw(request=9),
        draw(position=9),
        draw(stream=Stream.ACCEPT),
        draw(root=9),
        draw(node=9),
    ]
    assert draw() == base
    assert len({base, *others}) == 6
    assert (
        generator(
            Sampling(1.0, seed=6), request=1, position=2, stream=Stream.DRAFT, root=3, node=4
        ).random()
        != base
    )
