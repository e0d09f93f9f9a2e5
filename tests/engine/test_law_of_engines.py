"""The law of what engines emit under rules for draws, counted over many seeds.

Chi-square of two tokens against the law that a real model gives them. Draws are keyed by request,
so a count is the same in every run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.requests import Request
from engine.sampling import Sampling, warp
from tests.engine.tiny import VOCAB, decode_all, engine_for, near, tiny, tokens_of

pytestmark = pytest.mark.slow
PROMPT = (5, 9, 2)
RUNS = 1500
HOT = Sampling(temperature=2.5, top_k=3)
#: 99.9th percentile of chi-square with 8 degrees of freedom
MOST = 26.1
CHAINS: dict[str, tuple[str, dict[str, Any]]] = {
    "speculative": ("speculative", {"length": 3}),
    "dynamic": ("dynamic-tree", {"policy": "best-first", "top_k": 1}),
    "early-exit": ("early-exit", {"length": 3}),
    "kangaroo": ("kangaroo", {"confidence": 0.3}),
    "layer-skip": ("layer-skip", {"length": 3, "exit": 0.3}),
}
CASES = [
    *(
        pytest.param(rule, "static-tree", {"expansion": "2,2"}, id=rule)
        for rule in ("multi-step", "without-replacement", "traversal")
    ),
    *(pytest.param("block", *chain, id=f"block-{name}") for name, chain in CHAINS.items()),
]


@pytest.fixture(scope="module")
def pair():
    target = tiny(seed=6)
    return target, near(target, noise=0.5)


@pytest.fixture(scope="module")
def expected(pair) -> dict[tuple[int, int], float]:
    """Chance of every pair of tokens behind the prompt."""

    def law(tokens: tuple[int, ...]) -> np.ndarray:
        with torch.inference_mode():
            logits = pair[0].model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        return np.exp(warp(logits.numpy(), HOT))

    first = law(PROMPT)
    return {
        (a, b): first[a] * p
        for a in range(VOCAB) if first[a] > 0
        for b, p in enumerate(law((*PROMPT, a))) if p > 0
    }  # fmt: skip


@pytest.mark.parametrize(("rule", "method", "options"), CASES)
def test_engines_have_the_targets_law(pair, expected, rule, method, options):
    engine = engine_for(method, options, *pair, sampling=HOT, verify=rule, batch=16)
    done, steps = decode_all(engine, [Request(i, "", PROMPT, 3) for i in range(RUNS)])
    counts = dict.fromkeys(expected, 0)
    for tokens in tokens_of(done).values():
        counts[tuple(tokens[:2])] += 1  # KeyError: a pair the target never emits
    statistic = sum((counts[k] - RUNS * p) ** 2 / (RUNS * p) for k, p in expected.items())
    assert len(expected) == 9
    assert statistic < MOST
    accepted = sum(step.verdict.num_accepted for step in steps)
    assert 0.1 < accepted / len(steps) < 1.9, "the draft must be right now and then, not always"
