"""Acceptance: kernels and twins against the references, on random trees and at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_ext.accept import Settings, accept
from cuda_ext.arrays import GREEDY, MATCH, MULTI_STEP, RULES, TYPICAL, WITHOUT_REPLACEMENT, Plain
from cuda_ext.drawn import reference_drawn
from cuda_ext.match import reference_match
from cuda_ext.typical import reference_typical
from tests.cuda_ext.cases import Batch, Case, assert_same_as, batch_of, random_case

DRAWN = (MULTI_STEP, WITHOUT_REPLACEMENT)


def reference(settings: Settings, case: Case) -> Plain:
    tree = case.tokens, case.parents, case.logits_NV
    scale = settings.scale
    if settings.rule == GREEDY:
        return reference_match(*tree, None, scale=scale)
    if settings.rule == MATCH:
        return reference_match(*tree, case.noise_NV, scale=scale)
    if settings.rule == TYPICAL:
        return reference_typical(
            *tree, case.noise_NV, scale=scale, epsilon=settings.epsilon, alpha=settings.alpha
        )
    return reference_drawn(
        *tree, case.draft_NV, case.uniforms_N2,
        scale=scale, replacement=settings.rule == MULTI_STEP,
    )[0]  # fmt: skip


def run(settings: Settings, batch: Batch, how: str) -> Batch:
    accept(
        settings, batch.trees, batch.logits_RV, draws=batch.draws, stats=batch.stats,
        scratch=batch.scratch, out=batch.out, how=how,
    )  # fmt: skip
    return batch


def cases_for(rule: int, seed: int, *, count: int, most_nodes: int, vocab_size: int) -> list[Case]:
    rng = np.random.default_rng(seed)
    replacement = {MULTI_STEP: True}.get(rule, False)
    return [
        random_case(
            rng, num_nodes=int(rng.integers(1, most_nodes + 1)), vocab_size=vocab_size,
            replacement=replacement,
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    ("most_nodes", "vocab_size", "packed"), [(1, 2, False), (7, 5, True), (12, 21, False)]
)
def test_verdicts_are_the_references(how, rule, most_nodes, vocab_size, packed):
    """Paths of every length occur, so nothing passes for want of cases."""
    if rule != GREEDY and most_nodes > vocab_size:
        most_nodes = vocab_size + 2
    lengths = set()
    for seed in range(4 if how == "kernel" else 12):
        settings = Settings(rule, scale=1.0 if seed == 0 else 1 / 0.7, epsilon=0.2)
        cases = cases_for(rule, seed, count=4, most_nodes=most_nodes, vocab_size=vocab_size)
        batch = batch_of(cases, settings, width=most_nodes + 2, packed=packed)
        out = run(settings, batch, how).out
        for b, case in enumerate(cases):
            assert_same_as(reference(settings, case), out, b)
        lengths |= set(out.path_len_B.tolist())
    if most_nodes > 1:
        assert len(lengths) > 1
