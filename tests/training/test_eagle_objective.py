"""The EAGLE objective: what a step sees and is asked, and that it teaches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from engine.errors import UserError
from engine.inside import capture
from engine.training.eagle import EagleObjective, RolloutAttention
from engine.training.heads import HeadBatch
from tests.engine.tiny import VOCAB, tiny


def look(target, objective, ids_BN) -> HeadBatch:
    with torch.no_grad():
        logits, states = capture(target.model, objective.points, input_ids=ids_BN, use_cache=False)
    return HeadBatch(ids_BN, states, logits)


def text(*, rows: int, length: int, seed: int) -> torch.Tensor:
    """A language in which two tokens may follow each, the first of them mostly."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, VOCAB, (rows,), generator=generator)]
    for _ in range(length - 1):
        rare = torch.rand(rows, generator=generator) < 0.2
        ids.append((5 * ids[-1] + 7 + 11 * rare) % VOCAB)
    return torch.stack(ids, 1)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_loss_falls_and_guesses_get_better(architecture):
    target = tiny(architecture, seed=1)
    objective = EagleObjective(target, steps=3, hard=1.0)
    held_out = look(target, objective, text(rows=64, length=16, seed=1))
    optimiser = torch.optim.AdamW(objective.module.parameters(), lr=1e-2, weight_decay=0.0)
    with torch.no_grad():
        before = float(objective.loss(held_out))
    for step in range(80):
        rows = text(rows=16, length=16, seed=100 + step)
        objective.loss(look(target, objective, rows)).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        after, hits = float(objective.loss(held_out)), objective.correct(held_out)
    assert after < 0.6 * before
    assert set(hits) == {2, 3, 4}
    for offset, (by_rank, count) in hits.items():
        assert count == 64 * (16 - offset)
        assert by_rank[0] > 0.6 * count, "the commoner of two tokens is right four times of five"


def test_a_step_is_asked_for_the_target_s_next_distribution():
    """A head whose guess is the target's own loses what the target's entropy is, no more."""
    target = tiny(seed=1)
    objective = EagleObjective(target, steps=3)
    batch = look(target, objective, text(rows=4, length=16, seed=2))
    logq_BNV = batch.logits_BNV.float().log_softmax(-1)
    places = iter(range(1, 4))
    objective._roll = lambda _: (batch.ids_BN[:, at:] for at in places)
    objective._logits = lambda at_BM: logq_BNV[:, -at_BM.size(1) :]
    entropy = [-(batch.probs_BNV * logq_BNV).sum(-1)[:, at:].mean() for at in (1, 2, 3)]
    expected = (entropy[0] + 0.8 * entropy[1] + 0.64 * entropy[2]) / 2.44
    assert float(objective.loss(batch)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_row_sees_true_rows_before_it_and_its_own_drafts_alone(kv_heads):
    """Against attention over all rows of all steps under one mask that says who sees whom."""
    generator = torch.Generator().manual_seed(0)
    num, dim = 7, 8
    attend, keys, values, steps_of, places = RolloutAttention(), [], [], [], []
    for step in range(4):
        rows = num - step
        query = torch.randn(2, 4, rows, dim, generator=generator)
        key, value = (torch.randn(2, kv_heads, rows, dim, generator=generator) for _ in range(2))
        keys.append(key.repeat_interleave(4 // kv_heads, 1))
        values.append(value.repeat_interleave(4 // kv_heads, 1))
        steps_of += [step] * rows
        places += list(range(rows))
        at, of = torch.tensor(places), torch.tensor(steps_of)
        own = torch.arange(rows)[:, None]
        seen = (of == 0) & (at <= own) | (of > 0) & (at == own)
        expected = functional.scaled_dot_product_attention(
            query, torch.cat(keys, 2), torch.cat(values, 2), attn_mask=seen
        )
        assert torch.allclose(attend(query, key, value), expected.transpose(1, 2), atol=1e-5)


def test_the_target_is_not_trained():
    target = tiny(seed=1)
    objective = EagleObjective(target, steps=2)
    ours = {id(parameter) for parameter in objective.module.parameters()}
    assert not ours & {id(parameter) for parameter in target.model.parameters()}
    objective.loss(look(target, objective, text(rows=2, length=8, seed=0))).backward()
    assert all(parameter.grad is None for parameter in target.model.parameters())


def test_steps_out_of_bounds_are_refused():
    for steps in (0, 17):
        with pytest.raises(UserError, match=f"steps is {steps}"):
            EagleObjective(tiny(), steps=steps)
