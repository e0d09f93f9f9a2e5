"""Verdicts by compiled twins, and by kernels over logits that stay on a device, are the rules'."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import engine.target as target_module
from cuda_ext import memory
from engine.device_judging import DeviceJudge
from engine.device_sampling import warp_on_device
from engine.growth import Noise
from engine.judging import judge
from engine.rules import Verifier
from engine.sampling import Sampling, gumbel, warp
from tests.engine.tiny import decode_all, engine_for, near, requests, tiny, tokens_of

SAMPLED = Sampling(temperature=0.8, seed=3)
SETTINGS = {
    "greedy": ("match", Sampling()),
    "match": ("match", SAMPLED),
    "multi-step": ("multi-step", SAMPLED),
    "without-replacement": ("without-replacement", SAMPLED),
    "typical": ("typical", SAMPLED),
    "cut": ("match", Sampling(temperature=0.8, top_k=20, top_p=0.9, seed=3)),
}


def run(verify: str, sampling: Sampling, *, count: int = 2, batch: int = 2, **config):
    target = tiny("llama")
    engine = engine_for(
        "static-tree", {"expansion": "3,2,1"}, target, near(target),
        verify=verify, sampling=sampling, batch=batch, **config,
    )  # fmt: skip
    return decode_all(engine, requests(count, max_new_tokens=6))


def assert_same_steps(one, other) -> None:
    assert tokens_of(one[0]) == tokens_of(other[0])
    assert len(one[1]) == len(other[1])
    for a, b in zip(one[1], other[1], strict=True):
        assert a.verdict.path_A == b.verdict.path_A
        assert a.verdict.origin == b.verdict.origin
        np.testing.assert_array_equal(a.verdict.fate_N, b.verdict.fate_N)
        np.testing.assert_allclose(
            a.verdict.accept_prob_N, b.verdict.accept_prob_N, rtol=1e-5, atol=1e-7
        )
        np.testing.assert_allclose(a.emitted_logprob, b.emitted_logprob, rtol=1e-4, atol=1e-5)


@pytest.fixture
def simulated_device(monkeypatch):
    """Logits stay where they are and are judged by kernels, in the simulator's memory."""
    if not memory.SIMULATED:
        pytest.skip("needs the simulator: NUMBA_ENABLE_CUDASIM=1")
    judged = []
    whole = DeviceJudge.judge

    def noted(self, *arguments, **how):
        judged.append(len(arguments[1]))
        return whole(self, *arguments, **how)

    monkeypatch.setattr(target_module, "stays_on_device", lambda found: True)
    monkeypatch.setattr(DeviceJudge, "judge", noted)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield judged
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("verify", "sampling"), SETTINGS.values(), ids=SETTINGS)
def test_twins_decode_as_the_rules_in_python(verify, sampling):
    assert_same_steps(run(verify, sampling, count=4), run(verify, sampling, count=4, kernels="off"))


@pytest.mark.parametrize(("verify", "sampling"), SETTINGS.values(), ids=SETTINGS)
def test_kernels_decode_as_the_rules_in_python(simulated_device, monkeypatch, verify, sampling):
    """Whole requests: verdicts, cache rows moved by the kernel, what records say."""
    found = run(verify, sampling, count=3)  # one joins where another left
    assert set(simulated_device) == {1, 2}, "batches of two, then the last request alone"
    monkeypatch.undo()
    assert_same_steps(found, run(verify, sampling, count=3, kernels="off"))


def test_a_rule_that_no_kernel_has_is_judged_in_python(simulated_device):
    found = run("traversal", SAMPLED, count=1, batch=1)
    assert not simulated_device
    assert found[0][0].num_accepted > 0


def test_the_twin_is_what_sampling_uses(monkeypatch):
    """Else the comparisons above would compare Python with itself."""
    import engine.rules as rules

    called = []
    monkeypatch.setattr(rules, "judge", lambda *a, **k: called.append(1) or judge(*a, **k))
    run("multi-step", SAMPLED, count=1)
    assert called
    called.clear()
    run("multi-step", SAMPLED, count=1, kernels="off")
    assert not called


def test_an_unknown_switch_is_refused():
    from engine.errors import UserError

    with pytest.raises(UserError, match="kernels"):
        Verifier("match", SAMPLED, kernels="fast")


@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_cutting_on_a_device_is_warp(top_k, top_p):
    sampling = Sampling(temperature=0.7, top_k=top_k, top_p=top_p)
    logits = np.random.default_rng(0).normal(0, 3, (20, 50)).astype(np.float32)
    found = warp_on_device(torch.from_numpy(logits), sampling).numpy()
    np.testing.assert_allclose(found, warp(logits, sampling), atol=1e-9)


def test_noise_goes_round_in_its_table_and_stays_itself():
    noise = Noise(SAMPLED, request=4, vocab_size=11)

    def is_right(position: int) -> bool:
        fresh = gumbel(SAMPLED, request=4, position=position, vocab_size=11)
        return bool((noise.at(position) == fresh).all())

    for root in range(100, 160, 3):
        noise.forget_before(root)
        for position in range(root + 12, root - 1, -1):  # deeper than the table at first
            assert is_right(position)
        assert all(is_right(position) for position in range(root, root + 13))
    assert len(noise.table_DV) <= 32, "positions before the root keep no row"
