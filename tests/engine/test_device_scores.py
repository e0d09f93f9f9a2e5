"""Scores that stay on the device: the host's figures exactly, and no logits copied unasked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import device_scores as module
from engine import target as target_module
from engine.device_scores import DevicePass, DeviceScores, device_scores
from engine.errors import DecodeError
from engine.runner import NodeLogits
from engine.sampling import Sampling
from engine.target import Scores
from engine.tree import TokenTree, tree_from_lists
from tests.engine.tiny import VOCAB, decode_all, engine_for, near, requests, tiny, tokens_of


def random_tree(rng: np.random.Generator, num_nodes: int, pruned: int) -> TokenTree:
    total = num_nodes + pruned
    parents = [-1, *(int(rng.integers(0, min(at, num_nodes))) for at in range(1, total))]
    tree = tree_from_lists(rng.integers(0, VOCAB, total).tolist(), parents, [0.0] * total)
    tree.num_nodes = num_nodes
    tree.round_pruned_M[num_nodes:] = 1
    return tree


def scores_of_both(seed: int, dtype: torch.dtype) -> list[tuple[TokenTree, Scores, Scores]]:
    """Trees of three slots with padding between their rows: (tree, device's, host's)."""
    rng = np.random.default_rng(seed)
    trees = {slot: random_tree(rng, int(rng.integers(1, 9)), slot) for slot in (0, 2, 3)}
    first, rows = {}, 2
    for slot, tree in trees.items():
        first[slot], rows = rows, rows + tree.num_nodes + 1
    logits = torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)).to(dtype)
    logits[rows // 2, :2] = logits[rows // 2].max() + 1  # a tie
    found = NodeLogits(logits, torch.logsumexp(logits.float(), -1), first)
    host, norms = logits.float().numpy().copy(), found.log_norm_R.numpy().copy()
    ours = device_scores(found, trees, tiny())
    assert (logits.float().numpy() == host).all(), "the logits were changed"
    out = []
    for slot, tree in trees.items():
        rows_of = slice(first[slot], first[slot] + tree.num_nodes)
        out.append((tree, ours[slot], Scores(host[rows_of], norms[rows_of])))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(6))
def test_figures_are_the_hosts(seed, dtype):
    for tree, ours, theirs in scores_of_both(seed, dtype):
        assert isinstance(ours, DeviceScores)
        np.testing.assert_array_equal(ours.node_logprobs(tree), theirs.node_logprobs(tree))
        np.testing.assert_array_equal(ours.log_norm_N, theirs.log_norm_N)
        path = tree.path_to(tree.num_nodes - 1)
        np.testing.assert_array_equal(ours.top2_gap(path), theirs.top2_gap(path))
        for node in range(tree.num_nodes):
            assert ours.best(node) == theirs.best(node)
            for token in (ours.best(node), 0, 7):
                assert ours.logprob(node, token) == pytest.approx(
                    theirs.logprob(node, token), abs=1e-6
                )
        assert "logits_NV" not in vars(ours), "logits were copied to the host unasked"
        np.testing.assert_array_equal(ours.logits_NV, theirs.logits_NV)


def test_the_copy_is_waited_for_once_and_when_it_is_looked_at():
    tree = random_tree(np.random.default_rng(0), 4, 0)
    logits = torch.randn(4, VOCAB)
    found = NodeLogits(logits, torch.logsumexp(logits, -1), {0: 0})
    waits = []

    def copy(values):
        host = torch.full_like(values, torch.nan)  # not there yet

        def arrive():
            waits.append(1)
            host.copy_(values)

        return host, arrive

    whole = DevicePass(found, {0: tree}, tiny(), copy=copy)
    scores = DeviceScores(whole, 0, 4)
    assert not waits
    assert scores.best(0) == int(logits[0].argmax())
    scores.node_logprobs(tree)
    scores.top2_gap([0])
    assert len(waits) == 1


def test_everything_but_the_copy_stays_on_the_device():
    """On the meta device a tensor left on the host cannot be mixed in without an error."""
    tree = random_tree(np.random.default_rng(0), 4, 0)
    logits = torch.zeros(5, VOCAB, device="meta", dtype=torch.bfloat16)
    copied = []

    def copy(values):
        copied.append(values)
        return values, lambda: None

    found = NodeLogits(logits, torch.zeros(5, device="meta"), {0: 1})
    DevicePass(found, {0: tree}, tiny(), copy=copy)
    assert [(v.shape, v.dtype, v.device.type) for v in copied] == [((5, 5), torch.float32, "meta")]


def test_a_row_that_is_not_finite_is_named_but_padding_may_be_anything():
    tree = random_tree(np.random.default_rng(0), 2, 0)
    logits = torch.randn(4, VOCAB)
    logits[3] = torch.nan
    norms = torch.logsumexp(logits, -1)
    fine = device_scores(NodeLogits(logits.clone(), norms, {0: 0}), {0: tree}, tiny())[0]
    fine.best(0)
    bad = device_scores(NodeLogits(logits.clone(), norms, {0: 2}), {0: tree}, tiny())[0]
    with pytest.raises(DecodeError, match="NaN"):
        bad.best(0)


@pytest.mark.parametrize(
    ("method", "options", "how"),
    [
        ("dynamic-tree", {}, {}),
        ("static-tree", {}, {"sampling": Sampling(temperature=0.8, seed=2)}),
        ("token-recycling", {}, {}),
        ("speculative", {"keep_generating": 0.5}, {"batch": 3}),
    ],
)
def test_runs_are_the_same_step_for_step(method, options, how, monkeypatch):
    target = tiny()
    draft = near(target)
    outcomes = []
    for on_device in (False, True):
        monkeypatch.setattr(target_module, "stays_on_device", lambda found, on=on_device: on)
        # judged in Python: kernels on a device have tests of their own, and their simulator is slow
        engine = engine_for(method, options, target, draft, kernels="off", **how)
        done, steps = decode_all(engine, requests(4))
        outcomes.append((tokens_of(done), steps))
    (tokens, steps), (own_tokens, own_steps) = outcomes
    assert tokens == own_tokens
    for one, other in zip(steps, own_steps, strict=True):
        np.testing.assert_array_equal(one.target_logprob_M, other.target_logprob_M)
        np.testing.assert_array_equal(one.top2_gap, other.top2_gap)
        np.testing.assert_allclose(one.emitted_logprob, other.emitted_logprob, atol=1e-6)


@pytest.mark.parametrize("method", ["dynamic-tree", "prompt-lookup"])
def test_greedy_decoding_copies_no_logits(method, monkeypatch):
    monkeypatch.setattr(target_module, "stays_on_device", lambda found: True)

    def refuse(values):
        raise AssertionError(f"logits of shape {tuple(values.shape)} went to the host")

    monkeypatch.setattr(module, "to_numpy", refuse)
    target = tiny()
    engine = engine_for(method, {}, target, near(target), kernels="off")
    done, _ = decode_all(engine, requests(2))
    assert len(done) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_real_device_figures_are_the_hosts():
    rng = np.random.default_rng(1)
    tree = random_tree(rng, 20, 3)
    logits = torch.randn(20, 50_000, device="cuda", dtype=torch.bfloat16)
    norms = torch.logsumexp(logits.float(), -1)
    theirs = Scores(logits.float().cpu().numpy(), norms.cpu().numpy())
    ours = device_scores(NodeLogits(logits, norms, {0: 0}), {0: tree}, tiny())[0]
    np.testing.assert_allclose(ours.node_logprobs(tree), theirs.node_logprobs(tree), atol=1e-5)
    assert [ours.best(n) for n in range(20)] == [theirs.best(n) for n in range(20)]
    np.testing.assert_allclose(ours.top2_gap([0, 3, 7]), theirs.top2_gap([0, 3, 7]), atol=1e-5)
