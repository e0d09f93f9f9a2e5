"""One launch for a whole step is the same as its parts; wide vocabularies; bfloat16; edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_ext.accept import Settings
from cuda_ext.arrays import GREEDY, MATCH, MULTI_STEP, RULES, WITHOUT_REPLACEMENT
from cuda_ext.gather import reference_gather_rows
from cuda_ext.step import Cache, step
from tests.cuda_ext.cases import Batch, assert_same_as, batch_of, host, random_case, to_device
from tests.cuda_ext.test_accept import cases_for, reference


def step_of(settings: Settings, batch: Batch, cache: Cache, done_B, how: str) -> None:
    step(
        settings, batch.trees, batch.logits_RV, draws=batch.draws, stats=batch.stats,
        scratch=batch.scratch, out=batch.out, cache=cache, done_B=done_B, how=how,
    )  # fmt: skip


def random_cache(rng: np.random.Generator) -> Cache:
    return Cache(
        rng.integers(-(2**60), 2**60, (4, 5, 40, 3)),
        np.array([4, 0, 2, 1], np.int32),
        np.array([7, 20, 0, 9, 3], np.int32),
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_step_judges_moves_and_counts(how, rule):
    """Twice with the same buffers: nothing is left over from one step to the next."""
    rng = np.random.default_rng(rule)
    settings = Settings(rule, scale=1.25)
    done = np.zeros(4, np.int32)
    for seed in (1, 2):
        cases = cases_for(rule, seed, count=4, most_nodes=6, vocab_size=9)
        batch, cache = batch_of(cases, settings), random_cache(rng)
        before, lengths = cache.words_LSRF.copy(), cache.length_S.copy()
        step_of(settings, batch, cache, done, how)
        verdicts = [reference(settings, case) for case in cases]
        for b, verdict in enumerate(verdicts):
            assert_same_as(verdict, batch.out, b)
        starts = lengths[cache.slot_B].tolist()
        paths = [verdict.path for verdict in verdicts]
        expected = reference_gather_rows(before, cache.slot_B.tolist(), starts, paths)
        np.testing.assert_array_equal(cache.words_LSRF, expected)
        lengths[cache.slot_B] += [len(path) for path in paths]
        assert cache.length_S.tolist() == lengths.tolist()
        assert not done.any()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_vocabulary_of_152_064(how, rule):
    if how == "kernel" and rule != MATCH:
        pytest.skip("minutes in the simulator: one rule stands for all")
    settings = Settings(rule, scale=1 / 0.9)
    rng = np.random.default_rng(5)
    nodes = 2 if how == "kernel" else 6
    case = random_case(rng, num_nodes=nodes, vocab_size=152_064, replacement=rule == MULTI_STEP)
    batch = batch_of([case], settings)
    cache = Cache(np.zeros((0, 1, 1, 1), np.int64), np.zeros(1, np.int32), np.zeros(1, np.int32))
    step_of(settings, batch, cache, np.zeros(1, np.int32), how)
    assert_same_as(reference(settings, case), batch.out, 0)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bfloat16_logits_are_widened_bit_for_bit(how, rule):
    if how == "twin":
        pytest.skip("a CPU model's logits are read in float32")
    settings = Settings(rule)
    case = cases_for(rule, 3, count=1, most_nodes=6, vocab_size=9)[0]
    rounded = torch.from_numpy(case.logits_NV).to(torch.bfloat16)
    case = case._replace(logits_NV=rounded.float().numpy())
    batch = batch_of([case], settings)._replace(logits_RV=rounded)
    cache = Cache(np.zeros((0, 1, 1, 1), np.int64), np.zeros(1, np.int32), np.zeros(1, np.int32))
    step_of(settings, batch, cache, np.zeros(1, np.int32), how)
    assert_same_as(reference(settings, case), batch.out, 0)


@pytest.mark.parametrize("rule", [MULTI_STEP, WITHOUT_REPLACEMENT])
def test_a_token_of_probability_zero_never_passes(how, rule):
    """At uniforms of 0 and of almost 1, with mass at one end of the vocabulary or the other."""
    rng = np.random.default_rng(0)
    settings = Settings(rule)
    for uniform in (0.0, np.nextafter(1.0, 0.0)):
        for impossible in ([0], [3], [0, 3], [1, 2]):
            case = random_case(rng, num_nodes=2, vocab_size=4, replacement=True)
            logits = case.logits_NV.copy()
            logits[:, impossible] = -np.inf
            draft = np.zeros((2, 4))
            draft[:, impossible[0]] = 1.0
            case = case._replace(
                tokens=[0, impossible[0]], parents=[-1, 0], logits_NV=logits, draft_NV=draft,
                uniforms_N2=np.full((2, 2), uniform),
            )  # fmt: skip
            batch = batch_of([case], settings)
            cache = Cache(
                np.zeros((0, 1, 1, 1), np.int64), np.zeros(1, np.int32), np.zeros(1, np.int32)
            )
            step_of(settings, batch, cache, np.zeros(1, np.int32), how)
            assert batch.out.path_len_B[0] == 1
            token = int(batch.out.next_token_B[0])
            assert token not in impossible
            assert token == reference(settings, case).next_token


def test_equal_logits_choose_the_lowest_token(how):
    settings = Settings(GREEDY)
    case = random_case(np.random.default_rng(1), num_nodes=1, vocab_size=33)
    logits = np.zeros((1, 33), np.float32)
    logits[0, [32, 30, 5, 17]] = 2.0
    batch = batch_of([case._replace(logits_NV=logits)], settings)
    cache = Cache(np.zeros((0, 1, 1, 1), np.int64), np.zeros(1, np.int32), np.zeros(1, np.int32))
    step_of(settings, batch, cache, np.zeros(1, np.int32), how)
    assert batch.out.next_token_B[0] == 5


@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("vocab_size", [37, 4096, 152_064])
def test_steps_on_a_device(device, rule, vocab_size):
    settings = Settings(rule, scale=1.25)
    cases = cases_for(rule, 7, count=4, most_nodes=24, vocab_size=vocab_size)
    batch = to_device(batch_of(cases, settings, width=32), device)
    cache = random_cache(np.random.default_rng(0))
    before, lengths = cache.words_LSRF.copy(), cache.length_S.copy()
    there = to_device(cache, device)
    step_of(settings, batch, there, torch.zeros(4, dtype=torch.int32, device=device), "auto")
    out = host(batch.out)
    verdicts = [reference(settings, case) for case in cases]
    for b, verdict in enumerate(verdicts):
        assert_same_as(verdict, out, b)
    starts = lengths[cache.slot_B].tolist()
    expected = reference_gather_rows(
        before, cache.slot_B.tolist(), starts, [verdict.path for verdict in verdicts]
    )
    np.testing.assert_array_equal(host(there.words_LSRF), expected)
