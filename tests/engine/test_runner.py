"""Tree attention: a tree's logits are those of each of its paths alone, on every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_ext.mask import fill_tree_inputs, reference_mask
from engine.errors import DecodeError, UserError
from engine.parts import NORMED, Part, Uses
from engine.runner import Nodes, TreeRunner
from engine.selfcheck import check_tree_attention
from tests.engine.tiny import CONFIGS, VOCAB, tiny

PARENTS = [-1, 0, 0, 1, 1, 2, 3, 6]


def path_logits(loaded, prefix, tokens, parents, node):
    path = [node]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    ids = torch.tensor([prefix + [tokens[n] for n in reversed(path)]])
    with torch.inference_mode():
        return loaded.model(input_ids=ids, use_cache=False).logits[0, -1].numpy()


@pytest.mark.parametrize("architecture", list(CONFIGS))
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_tree_equals_paths_and_stays_so_after_keeping(architecture, use_cache):
    """Two slots of different length; prefixes reach beyond the sliding window of 24."""
    loaded = tiny(architecture, seed=4)
    runner = TreeRunner(loaded, num_slots=2, capacity=120, max_tree=20, use_cache=use_cache)
    rng = np.random.default_rng(0)
    prefixes = [rng.integers(0, VOCAB, 45).tolist(), rng.integers(0, VOCAB, 6).tolist()]
    for slot, prefix in enumerate(prefixes):
        runner.admit(slot, prefix)
    for keep in ([0, 2, 5], [0], [0, 1, 3, 6, 7]):
        trees = [rng.integers(0, VOCAB, len(PARENTS)).tolist() for _ in prefixes]
        # grown in two passes, as a draft model does
        first = runner.forward({s: Nodes(t[:3], PARENTS[:3]) for s, t in enumerate(trees)})
        second = runner.forward({s: Nodes(t[3:], PARENTS[3:]) for s, t in enumerate(trees)})
        for slot, tokens in enumerate(trees):
            for node in range(len(PARENTS)):
                there, at = (first, node) if node < 3 else (second, node - 3)
                found = there.logits_RV[there.first[slot] + at]
                expected = path_logits(loaded, prefixes[slot], tokens, PARENTS, node)
                np.testing.assert_allclose(found.numpy(), expected, atol=2e-3, rtol=1e-3)
            runner.keep(slot, keep)
            prefixes[slot] += [tokens[n] for n in keep]


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_prefixes_read_together_leave_what_they_leave_alone(architecture, monkeypatch):
    """Passes of 16 tokens: prefixes are cut, some behind what their slot holds already."""
    loaded = tiny(architecture, seed=7)
    monkeypatch.setattr("engine.pass_inputs.READ_AT_ONCE", 16)
    rng = np.random.default_rng(2)
    prefixes = {
        slot: rng.integers(0, VOCAB, count).tolist()
        for slot, count in ((3, 45), (0, 6), (1, 0), (4, 30))
    }
    uses = Uses(Part(taps=(1, NORMED)))
    together, alone = (
        TreeRunner(loaded, num_slots=5, capacity=64, max_tree=4, uses=uses) for _ in range(2)
    )
    run, passes = together._prefilling, []
    monkeypatch.setattr(together, "_prefilling", Counted(run, passes))
    together.admit_all(prefixes)
    assert len(passes) == (6 if loaded.attention == "sdpa" else 8)
    for slot, prefix in prefixes.items():
        alone.admit(slot, prefix)
        assert together.length_B[slot] == len(prefix)
        for ours, theirs in zip(
            [*together.keys, *together.values, *together.states.values()],
            [*alone.keys, *alone.values, *alone.states.values()],
            strict=True,
        ):
            rows = slice(len(prefix))
            torch.testing.assert_close(ours[slot, rows], theirs[slot, rows], atol=1e-4, rtol=1e-4)
    assert not together.keys[0][2].any(), "a slot that nobody asked for was written to"
    for slot, prefix in prefixes.items():
        found = together.forward({slot: Nodes([5], [-1])})
        expected = path_logits(loaded, prefix, [5], [-1], 0)
        np.testing.assert_allclose(found.logits_RV[0].numpy(), expected, atol=2e-3, rtol=1e-3)


class Counted:
    """A forward whose calls are noted."""

    def __init__(self, run, calls: list):
        self.run, self.step, self.calls = run, run.step, calls

    def __call__(self, ids_BN, *inputs, **more):
        assert ids_BN.numel() <= 16
        self.calls.append(ids_BN.numel())
        return self.run(ids_BN, *inputs, **more)


def test_slots_of_one_batch_may_differ_in_everything():
    loaded = tiny()
    runner = TreeRunner(loaded, num_slots=3, capacity=64, max_tree=8)
    runner.admit(0, [])
    runner.admit(2, [5, 9, 2])
    found = runner.forward({0: Nodes([7], [-1]), 2: Nodes([1, 4, 4], [-1, 0, 0])})
    for slot, prefix, tokens, node in ((0, [], [7], 0), (2, [5, 9, 2], [1, 4, 4], 2)):
        expected = path_logits(loaded, prefix, tokens, [-1, 0, 0], node)
        row = found.logits_RV[found.first[slot] + node]
        np.testing.assert_allclose(row.numpy(), expected, atol=1e-3)
    assert torch.isfinite(found.logits_RV).all(), "padding leaked NaN"


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_packed_nodes_score_as_padded_ones(architecture):
    """Ragged trees of three slots, one of them idle; what eager attention cannot pack is padded."""
    loaded = tiny(architecture, seed=6)
    rng = np.random.default_rng(1)
    trees = {slot: rng.integers(0, VOCAB, count).tolist() for slot, count in ((0, 5), (2, 2))}
    found = {}
    for packs in (True, False):
        runner = TreeRunner(loaded, num_slots=4, capacity=64, max_tree=8)
        assert runner.eager.packs == (loaded.attention == "sdpa")
        runner.eager.packs &= packs
        for slot in (0, 1, 2):
            runner.admit(slot, list(range(3 * slot)))
        rows = runner.forward({s: Nodes(t, PARENTS[: len(t)]) for s, t in trees.items()})
        assert len(rows.logits_RV) == (7 if runner.eager.packs else 3 * 5)
        found[packs] = {
            s: rows.logits_RV[rows.first[s] : rows.first[s] + len(t)] for s, t in trees.items()
        }
    for slot in trees:
        torch.testing.assert_close(found[True][slot], found[False][slot], atol=1e-4, rtol=1e-4)


def test_a_model_whose_attention_cannot_be_packed_is_padded(monkeypatch):
    """Packing is tried, not believed: here the outcome of packed attention is wrong."""
    loaded = tiny(seed=12)
    monkeypatch.setattr(
        "engine.packing.sdpa_attention_forward",
        lambda module, query, *_, **__: (torch.zeros_like(query).transpose(1, 2), None),
    )
    runner = TreeRunner(loaded, num_slots=2, capacity=64, max_tree=8)
    assert not runner.eager.packs


def test_a_slot_that_overflows_says_so():
    runner = TreeRunner(tiny(), num_slots=1, capacity=16, max_tree=4)
    runner.admit(0, [1, 2])
    with pytest.raises(DecodeError, match="full"):
        runner.forward({0: Nodes([1] * 5, [-1] * 5)})


def test_kernel_equals_reference_on_random_trees():
    rng = np.random.default_rng(3)
    for _ in range(30):
        count, length = int(rng.integers(1, 20)), int(rng.integers(0, 30))
        parents = [-1] + [int(rng.integers(0, i)) for i in range(1, count)]
        cols = length + count + 5
        out = [np.zeros((1, count), np.int64) for _ in range(3)]
        mask = np.full((1, count, cols), np.nan, np.float32)
        fill_tree_inputs(
            *out, mask, mask[:0], np.zeros((1, count), np.int64), np.asarray([parents], np.int32),
            np.asarray([count], np.int32), np.asarray([length], np.int32), np.zeros(1, np.int32),
            np.zeros((1, count), np.int32), np.zeros((1, count, count), np.uint8), 64, 0,
        )  # fmt: skip
        allowed = np.zeros((count, cols), bool)
        allowed[:, : length + count] = reference_mask(parents, length)
        np.testing.assert_array_equal(np.isfinite(mask[0]), allowed)
        assert (mask[0][allowed] == 0).all()


def test_self_check_catches_a_model_that_ignores_masks():
    loaded = tiny()
    check_tree_attention(loaded)
    deaf = tiny(seed=9)
    plain_forward = deaf.model.forward

    def forward(*args, attention_mask=None, **kwargs):
        if isinstance(attention_mask, torch.Tensor):
            attention_mask = torch.zeros_like(attention_mask)
        return plain_forward(*args, attention_mask=attention_mask, **kwargs)

    deaf.model.forward = forward
    with pytest.raises(UserError, match="does not respect tree masks"):
        check_tree_attention(deaf)


def test_self_check_catches_positions_taken_from_slots():
    deaf = tiny(seed=10)
    plain_forward = deaf.model.forward

    def forward(*args, position_ids=None, **kwargs):
        if position_ids is not None and position_ids.shape[1] > 1:
            position_ids = torch.arange(position_ids.shape[1])[None] + position_ids.min()
        return plain_forward(*args, position_ids=position_ids, **kwargs)

    deaf.model.forward = forward
    with pytest.raises(UserError, match="positions"):
        check_tree_attention(deaf)
