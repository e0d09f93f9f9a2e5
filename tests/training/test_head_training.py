"""Training of heads on a target of seconds: it teaches, resumes exactly, and ends in order."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.parts import NORMED
from engine.training.checkpoint import load_checkpoint
from engine.training.heads import HeadBatch, HeadData, HeadProgress, HeadRecipe
from engine.training.heads_data import Rows
from engine.training.heads_ngram import ngram_accuracy
from engine.training.heads_optim import optimisers
from engine.training.heads_run import train_head
from engine.training.medusa import MedusaObjective
from engine.training.progress import Budget, TrainingFailed, TrainingStopped
from tests.training.heads_target import ROW, head_data, singer, songs, stream

RECIPE = HeadRecipe(
    budget=Budget(tokens=64 * 8 * ROW),
    length=ROW,
    rows=8,
    lr=3e-2,
    evaluate_every=0.25,
    evaluate_tokens=20 * ROW,
)
SHORT = dataclasses.replace(RECIPE, budget=Budget(tokens=12 * 8 * ROW))


def _train(recipe: HeadRecipe, checkpoint: Path, data: HeadData | None = None, **more: Any):
    objective = more.pop("objective", None) or MedusaObjective(singer(), num_heads=3)
    trained = train_head(
        recipe, singer(), data or head_data(), objective, checkpoint=checkpoint, **more
    )
    return objective.module, trained


def test_heads_learn_and_beat_an_ngram_at_the_token_after_the_next(tmp_path: Path) -> None:
    seen: list[HeadProgress] = []
    _, trained = _train(RECIPE, tmp_path / "head.pt", on_progress=seen.append)
    assert trained.held_out.loss < 0.5 * trained.first.loss
    data = head_data()
    ngram = ngram_accuracy(
        data.train, data.held_out, vocab_size=61, offsets=(2, 3, 4), length=ROW,
        most=4 * RECIPE.evaluate_tokens, sees_next=False,
    )  # fmt: skip
    assert trained.held_out.text[2].top(1) > ngram[2].top(1) + 0.05
    assert all(trained.held_out.text[offset].top(5) > 0.95 for offset in (2, 3, 4))
    told = [progress.held_out for progress in seen if progress.held_out is not None]
    assert len(told) == 4
    assert told[-1].text[2].top(1) > told[0].text[2].top(1)
    assert seen[-1].fraction == 1
    assert seen[-1].step == trained.step == 64


@pytest.mark.parametrize(("stop_after", "optimiser"), [(3, "adamw"), (8, "muon")])
def test_a_resumed_training_equals_an_unbroken_one(
    tmp_path: Path, stop_after: int, optimiser: str
) -> None:
    recipe = dataclasses.replace(SHORT, rows=4, accumulate=2, optimiser=optimiser)
    data = head_data(written=True)
    whole, first = _train(recipe, tmp_path / "whole.pt", data)
    seen: list[HeadProgress] = []
    calls = {"on_progress": seen.append, "should_stop": lambda: len(seen) == stop_after}
    with pytest.raises(TrainingStopped):
        _train(recipe, tmp_path / "broken.pt", data, **calls)
    resumed, second = _train(recipe, tmp_path / "broken.pt", data)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert first.held_out == second.held_out
    assert first.first == second.first


def test_gradients_of_several_passes_make_one_step(tmp_path: Path) -> None:
    """A step over two passes of four rows is one over eight."""
    budget = Budget(tokens=5 * 8 * ROW)
    one, _ = _train(dataclasses.replace(RECIPE, budget=budget), tmp_path / "one.pt")
    halves = dataclasses.replace(RECIPE, budget=budget, rows=4, accumulate=2)
    two, _ = _train(halves, tmp_path / "two.pt")
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name], atol=1e-3, rtol=1e-2)


class _Sick(MedusaObjective):
    """Loses its number at its seventh loss of training."""

    steps = 0

    def loss(self, batch):
        self.steps += self.module.training
        return super().loss(batch) * (float("nan") if self.steps == 7 else 1.0)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "head.pt"
    recipe = dataclasses.replace(SHORT, checkpoint_seconds=0.0)
    with pytest.raises(TrainingFailed, match=r"At step 7 the loss was nan.*head\.pt") as failed:
        _train(recipe, checkpoint, objective=_Sick(singer(), num_heads=3))
    assert "the same command goes on from there" in str(failed.value)
    state = load_checkpoint(checkpoint)
    assert state is not None
    assert state["meter"]["steps"] == 6
    assert all(value.isfinite().all() for value in state["module"].values())
    healthy, _ = _train(recipe, checkpoint)
    whole, _ = _train(recipe, tmp_path / "whole.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, healthy.state_dict()[name]), name


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path: Path) -> None:
    class Steep(MedusaObjective):
        def loss(self, batch):
            return super().loss(batch) + (next(self.module.parameters()) ** 2).sum().sqrt() * 0.0

    # the square root at zero has no slope, and the weights begin at zero
    with pytest.raises(TrainingFailed, match=r"gradient was nan.*No checkpoint"):
        _train(SHORT, tmp_path / "head.pt", objective=Steep(singer(), num_heads=3))


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path, monkeypatch) -> None:
    checkpoint, saved, save = tmp_path / "head.pt", [], torch.save

    def fill_up(state: Any, file: Any) -> None:
        saved.append(state)
        if len(saved) == 3:
            file.write(b"half a file")
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            finally:  # as torch does when it closes what it could not write
                raise RuntimeError("unexpected pos 599808 vs 599760")
        save(state, file)

    monkeypatch.setattr(torch, "save", fill_up)
    recipe = dataclasses.replace(SHORT, checkpoint_seconds=0.0)
    with pytest.raises(TrainingFailed, match=r"No space left on device.*before it is kept"):
        _train(recipe, checkpoint)
    state = load_checkpoint(checkpoint)
    assert state is not None
    assert state["meter"]["steps"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["head.pt"]


def test_patience_ends_a_run_and_the_best_weights_stay(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, lr=0.0, patience=2, evaluate_every=0.125)
    _, trained = _train(recipe, tmp_path / "head.pt")
    assert trained.ended_early
    assert trained.step == 24  # the first look is the best; two more are not better


def test_a_run_that_gets_worse_gives_its_best_weights(tmp_path: Path) -> None:
    class Spoilt(MedusaObjective):
        def loss(self, batch):
            return super().loss(batch) * (-1.0 if self.module.training else 1.0)

    recipe = dataclasses.replace(RECIPE, patience=1, evaluate_every=0.125)
    objective = Spoilt(singer(), num_heads=3)
    _, trained = _train(recipe, tmp_path / "head.pt", objective=objective)
    state = load_checkpoint(tmp_path / "head.pt")
    assert state is not None
    assert trained.ended_early
    assert trained.step == 16
    for name, value in objective.module.state_dict().items():
        assert torch.equal(value, state["best"][name]), name
    assert any(
        not torch.equal(state["best"][name], state["module"][name]) for name in state["best"]
    )


@pytest.mark.parametrize(
    ("data", "recipe", "message"),
    [
        (HeadData(stream(rows=0, seed=1), stream(rows=9, seed=2)), RECIPE, "0 tokens of text"),
        (HeadData(stream(rows=9, seed=1), stream(rows=0, seed=2)), RECIPE, "0 tokens .* held out"),
        (head_data(), dataclasses.replace(RECIPE, length=4096), "context is 160"),
        (
            HeadData(np.full(999, 61, np.int32), stream(rows=9, seed=2)),
            RECIPE,
            "encoded for another target",
        ),
    ],
)
def test_unusable_text_is_explained(data, recipe, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _train(recipe, tmp_path / "head.pt", data)
    assert not list(tmp_path.iterdir())


def test_mixed_precision_keeps_weights_in_float32(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, dtype="bfloat16")
    module, trained = _train(recipe, tmp_path / "head.pt")
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}
    assert trained.held_out.loss < trained.first.loss


def test_muon_takes_the_matrices_inside_the_head_alone() -> None:
    objective = MedusaObjective(singer(), num_heads=2, tied=False)
    named = dict(objective.module.named_parameters())
    recipe = dataclasses.replace(RECIPE, optimiser="muon", lr=0.02)
    made = optimisers(list(named.values()), recipe, vocab_size=61)
    names = {}
    for kind, optimiser in made.items():
        taken = [id(p) for group in optimiser.param_groups for p in group["params"]]
        names[kind] = {name for name, p in named.items() if id(p) in taken}
    assert names["muon"] == {"blocks.0.0.linear.weight", "blocks.1.0.linear.weight"}
    assert names["adamw"] == set(named) - names["muon"]


def test_the_target_is_never_trained(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in singer().model.state_dict().items()}
    _train(SHORT, tmp_path / "head.pt")
    for name, value in singer().model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(value.grad is None for value in singer().model.parameters())


def test_a_head_guesses_its_own_offset() -> None:
    """Heads that read a position off the state and name the token 2 + head places on are right."""
    ids = torch.from_numpy(songs(rows=4, seed=9).astype(np.int64))
    objective = MedusaObjective(singer(), num_heads=3, hard=1.0)
    place_BND = torch.eye(ROW).expand(4, ROW, ROW)
    batch = HeadBatch(ids, {NORMED: place_BND}, torch.zeros(4, ROW, 61))

    def oracle(hidden_BMD: torch.Tensor, head: int) -> torch.Tensor:
        wanted = ids.gather(1, hidden_BMD.argmax(-1) + head + 2)
        return 20.0 * torch.nn.functional.one_hot(wanted, 61)

    objective.module.logits = oracle
    found = objective.correct(batch)
    assert {offset: hits.top(1) for offset, hits in found.items()} == {2: 1.0, 3: 1.0, 4: 1.0}
    assert [hits.seen for hits in found.values()] == [4 * (ROW - offset) for offset in (2, 3, 4)]
    assert float(objective.loss(batch)) < 1e-3


def test_a_head_learns_what_the_target_says_at_its_offset() -> None:
    """Against the target's distribution: that of the row which is about the token it guesses."""
    ids = torch.from_numpy(songs(rows=4, seed=9).astype(np.int64))
    objective = MedusaObjective(singer(), num_heads=2, hard=0.0)
    place_BND = torch.eye(ROW).expand(4, ROW, ROW)
    said = torch.randint(61, (4, ROW))  # by the target, about the token after each
    logits = 20.0 * torch.nn.functional.one_hot(said, 61)
    batch = HeadBatch(ids, {NORMED: place_BND}, logits)

    def oracle(hidden_BMD: torch.Tensor, head: int) -> torch.Tensor:
        wanted = said.gather(1, hidden_BMD.argmax(-1) + head + 1)
        return 20.0 * torch.nn.functional.one_hot(wanted, 61)

    objective.module.logits = oracle
    assert float(objective.loss(batch)) < 1e-3


def test_a_share_of_the_passes_is_over_what_the_target_wrote() -> None:
    data = dataclasses.replace(head_data(), written_RT=np.full((12, ROW), 60, np.int32))
    for share, expected in ((0.5, [False, True] * 4), (0.25, [False, False, False, True] * 2)):
        rows = Rows(data, dataclasses.replace(RECIPE, rows=4, written_share=share))
        drawn = [rows.draw() for _ in range(8)]
        assert [bool((ids == 60).all()) for ids in drawn] == expected
        assert {tuple(ids.shape) for ids in drawn} == {(4, ROW)}


def test_an_ngram_is_judged_where_heads_are() -> None:
    """Triples of 5, one of four tokens, and what that one brings: to see it is to know the rest."""
    chosen = np.random.default_rng(0).integers(20, 24, 3000)
    text = np.stack([np.full_like(chosen, 5), chosen, chosen + 10], 1).reshape(-1).astype(np.int32)
    common = {"vocab_size": 61, "offsets": (2,), "length": 300, "most": 3000}
    seeing = ngram_accuracy(text[:6000], text[6000:], sees_next=True, **common)[2]
    assert seeing.top(1) == pytest.approx(2 / 3 + 0.25 / 3, abs=0.03)
    assert seeing.top(5) == 1.0
    blind = ngram_accuracy(text[:6000], text[6000:], sees_next=False, **common)[2]
    assert blind.top(1) == pytest.approx((0.25 + 1 + 0.25) / 3, abs=0.03)
