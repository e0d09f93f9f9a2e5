"""The objective of Kangaroo's adapter: what it is asked, that it teaches, and who is taught."""

from __future__ import annotations

import pytest
import torch

from engine.errors import UserError
from engine.heads.kangaroo import causal
from engine.inside import Inside, capture
from engine.training.heads import HeadBatch
from engine.training.kangaroo import KangarooObjective
from tests.engine.tiny import VOCAB, tiny


def look(target, objective, ids_BN) -> HeadBatch:
    with torch.no_grad():
        logits, states = capture(target.model, objective.points, input_ids=ids_BN, use_cache=False)
    return HeadBatch(ids_BN, states, logits)


def text(*, rows: int, length: int = 16, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (rows, length), generator=generator)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gpt-neox", "gemma2"])
def test_the_adapter_learns_what_the_whole_target_says(architecture):
    target = tiny(architecture, seed=1)
    objective = KangarooObjective(target)
    assert objective.points == (1,)
    held_out = look(target, objective, text(rows=32, seed=1))
    best_BN = held_out.logits_BNV.argmax(-1)

    def state() -> tuple[float, float]:
        with torch.no_grad():
            agreed = (objective._logits(held_out).argmax(-1) == best_BN).float().mean()
            return objective.loss(held_out).item(), agreed.item()

    before, agreed_before = state()
    optimiser = torch.optim.AdamW(objective.module.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(100):
        objective.loss(look(target, objective, text(rows=16, seed=100 + step))).backward()
        optimiser.step()
        optimiser.zero_grad()
    after, agreed_after = state()
    entropy = -(held_out.probs_BNV * held_out.probs_BNV.clamp_min(1e-30).log()).sum(-1).mean()
    assert after - entropy < 0.7 * (before - entropy)
    assert 1 - agreed_after < 0.8 * (1 - agreed_before)


def test_the_loss_is_the_cross_entropy_with_the_target_at_the_same_position():
    target = tiny(seed=1)
    objective = KangarooObjective(target)
    batch = look(target, objective, text(rows=3, seed=2))
    positions = torch.arange(16)[None]
    drafted = Inside.of(target.model).head(objective.module(batch.states[1], positions, causal))
    expected = -sum(
        torch.dot(full.softmax(-1), draft.log_softmax(-1))
        for full, draft in zip(batch.logits_BNV.flatten(0, 1), drafted.flatten(0, 1), strict=True)
    ) / (3 * 16)
    assert objective.loss(batch).item() == pytest.approx(float(expected), rel=1e-4)


def test_a_guess_is_right_where_the_chain_before_it_is():
    """Against the same counted by hand: rows of guesses that are right here and wrong there."""
    target = tiny(seed=1)
    objective = KangarooObjective(target)
    ids_BN = text(rows=2, length=9, seed=3)
    right = [[1, 1, 1, 0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1, 1, 1]]  # row n on token n + 1
    logits = torch.zeros(2, 9, VOCAB)
    for row in range(2):
        for at in range(8):
            token = int(ids_BN[row, at + 1])
            logits[row, at, token] = 3.0
            if not right[row][at]:  # then it is the second choice
                logits[row, at, (token + 1) % VOCAB] = 4.0
    objective._logits = lambda batch: logits
    hits = objective.correct(HeadBatch(ids_BN, {}, logits))
    assert sorted(hits) == [2, 3, 4, 5]
    for offset, (by_rank, count) in hits.items():
        chains = [(row, at) for row in range(2) for at in range(1, 8 - (offset - 2))]
        last = offset - 2
        so_far = [(r, at) for r, at in chains if all(right[r][at + i] for i in range(last))]
        assert count == len(chains)
        assert by_rank[0] == sum(right[r][at + last] for r, at in so_far)
        assert by_rank[1] == sum(not right[r][at + last] for r, at in so_far)
        assert sum(by_rank[2:]) == 0


def test_short_rows_say_nothing_of_far_offsets():
    target = tiny(seed=1)
    objective = KangarooObjective(target)
    hits = objective.correct(look(target, objective, text(rows=2, length=4, seed=0)))
    assert sorted(hits) == [2, 3]


def test_the_target_is_not_trained():
    target = tiny(seed=1)
    objective = KangarooObjective(target)
    ours = {id(parameter) for parameter in objective.module.parameters()}
    assert not ours & {id(parameter) for parameter in target.model.parameters()}
    objective.loss(look(target, objective, text(rows=2, seed=0))).backward()
    assert all(parameter.grad is None for parameter in target.model.parameters())


def test_an_exit_that_the_target_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"3 layers.*has 2 \(layers 0 to 1\)"):
        KangarooObjective(tiny(), exit_layer=3)
