"""Options that many methods share: the adaptive exit and the target's keep-generation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from engine.drafters.common import AdaptiveExit
from engine.drafters.speculative import Options
from engine.tree import Source
from tests.engine.tiny import decode_all, engine_for, near, requests, tiny, tokens_of


@pytest.fixture(scope="module")
def pair():
    target = tiny()
    return target, near(target)


def steps_of(pair, method: str, options: dict) -> list:
    return decode_all(engine_for(method, options, *pair), requests(2, max_new_tokens=40))[1]


def test_an_exit_of_one_leaves_the_first_level(pair):
    for step in steps_of(pair, "speculative", {"length": 6, "exit": 1.0, "exit_target": 0.0}):
        assert step.tree.num_drafted <= 1


def test_the_exit_shortens_unsure_drafts_only(pair):
    options = {"length": 6, "exit": 0.3, "exit_target": 0.0}  # never raised
    for step in steps_of(pair, "speculative", options):
        logprobs = step.tree.draft_logprob_M[1 : step.tree.num_nodes]
        assert (logprobs[:-1] > math.log(0.25)).all(), "it went on from an unsure token"


def test_the_threshold_follows_acceptance():
    adaptive = AdaptiveExit(Options(exit=0.5, exit_target=0.9))
    for _ in range(20):
        adaptive.stops([math.log(0.9)])
        adaptive.adapt(accepted=0, drafted=4)
    assert 0.5 < adaptive.threshold < 0.53, "too little accepted: up, a tenth of 0.01 a step"
    high = adaptive.threshold
    for _ in range(20):
        assert adaptive.stops([math.log(0.1), math.log(0.2)])
        adaptive.adapt(accepted=4, drafted=4)
    assert adaptive.threshold < high, "all accepted, and stopped early: down"
    before = adaptive.threshold
    adaptive.adapt(accepted=0, drafted=0)
    assert adaptive.threshold == before
    adaptive.adapt(accepted=4, drafted=4)
    assert adaptive.threshold == before, "as far as allowed, and not stopped: as it was"


def test_the_threshold_is_the_papers():
    """Draft & Verify's rule by hand: m <- .5 m + .5 matched/drafted, then gamma a tenth of .01."""
    adaptive = AdaptiveExit(Options(exit=0.8))  # alpha is .9 by default
    gamma, mean = 0.8, 0.9
    for accepted, drafted, stopped in ((2, 3, True), (3, 3, True), (8, 8, False), (4, 4, True)):
        adaptive.stops([math.log(0.1 if stopped else 0.99)])
        adaptive.adapt(accepted=accepted, drafted=drafted)
        mean = 0.5 * mean + 0.5 * accepted / drafted
        wanted = gamma + 0.01 if mean < 0.9 else gamma - 0.01 if stopped else gamma
        gamma = 0.9 * gamma + 0.1 * wanted
        assert adaptive.threshold == pytest.approx(gamma, abs=1e-12)


def test_the_target_goes_on_alone_while_it_is_unsure(pair):
    threshold = 0.05
    steps = steps_of(pair, "static-tree", {"keep_generating": threshold})
    alone = 0
    for one, other in pairwise(steps):
        if one.request != other.request:
            continue
        unsure = one.emitted_logprob[-1] < math.log(threshold)
        assert (other.tree.num_drafted == 0) == bool(unsure)
        alone += bool(unsure)
    assert 0 < alone < len(steps) - 2


@pytest.mark.parametrize("cache", [True, False])
def test_a_draft_model_left_behind_catches_up(pair, cache):
    """Twelve steps alone put more tokens behind than a draft pass takes along."""
    wanted = requests(1, max_new_tokens=40)
    engine = engine_for("speculative", {"keep_generating": 0.5}, *pair, cache=cache)
    keeper = engine._drafter
    engine.add(wanted[0])
    tokens = []
    for number in range(40):
        if number < 12:
            keeper._alone.add(0)
        else:
            keeper._alone.discard(0)
        if not engine.busy:
            break
        output = engine.step()
        tokens += output.steps[0].emitted[: output.steps[0].num_kept]
        if number == 12:
            assert output.steps[0].tree.num_drafted > 0
    plain, _ = decode_all(engine_for("autoregressive", {}, *pair), wanted)
    assert tokens == tokens_of(plain)[0][: len(tokens)]


def test_combine_takes_turns(pair):
    """Greedy output of a tiny model loops: then the lookup drafts, before that the model."""
    steps = steps_of(pair, "combine", {})
    sources = {int(step.tree.source_M[1]) for step in steps if step.tree.num_drafted}
    assert sources == {Source.DRAFT, Source.LOOKUP}
    model = sum(step.tree.draft_passes for step in steps)
    assert model < sum(step.tree.draft_passes for step in steps_of(pair, "dynamic-tree", {}))
