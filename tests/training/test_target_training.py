"""Training resumes exactly, grows without a jump, and its parts do what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from engine.training.batches import BatchSampler
from engine.training.models import ModelShape, build_model, stack_layers
from engine.training.optim import orthogonalise
from engine.training.prepare import Prepared
from engine.training.progress import Budget, PairProgress, TrainingStopped, trapezoid
from engine.training.target import Stage, TargetData, TargetRecipe, train_target

TINY_TARGET = ModelShape(layers=2, hidden=32, heads=2, intermediate=64)
RECIPE = TargetRecipe(
    budget=Budget(tokens=24 * 256),
    shape=TINY_TARGET,
    first_layers=1,
    stages=(Stage(0, 32, 8), Stage(0.5, 64, 4)),
    context=128,
)


def _data(tiny: Prepared) -> TargetData:
    return TargetData(tiny.train, tiny.library, len(tiny.tokenizer), tiny.tokenizer.eos_token_id)


@pytest.mark.parametrize("stop_after", [5, 17])
def test_resumed_training_equals_unbroken(tiny: Prepared, tmp_path: Path, stop_after: int) -> None:
    whole = train_target(RECIPE, _data(tiny), checkpoint=tmp_path / "whole.pt")
    seen: list[PairProgress] = []
    with pytest.raises(TrainingStopped):
        train_target(
            RECIPE,
            _data(tiny),
            checkpoint=tmp_path / "broken.pt",
            on_progress=seen.append,
            should_stop=lambda: len(seen) == stop_after,
        )
    resumed = train_target(RECIPE, _data(tiny), checkpoint=tmp_path / "broken.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_learns_and_reports(tiny: Prepared, tmp_path: Path) -> None:
    seen: list[PairProgress] = []
    model = train_target(RECIPE, _data(tiny), checkpoint=tmp_path / "t.pt", on_progress=seen.append)
    assert model.config.num_hidden_layers == 2
    assert seen[-1].fraction == 1
    assert seen[-1].tokens >= 24 * 256
    losses = [progress.loss for progress in seen if progress.loss is not None]
    assert losses[-1] < losses[0] - 0.5


def test_stacking_keeps_the_function() -> None:
    model = build_model(TINY_TARGET, vocab_size=300, context=64, end_of_text=0, seed=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(0, 300, (2, 32))
    deep = stack_layers(model, layers=6)
    assert len(deep.model.layers) == 6
    with torch.no_grad():
        torch.testing.assert_close(deep(tokens).logits, model(tokens).logits)
    with pytest.raises(ValueError, match="not a multiple"):
        stack_layers(model, layers=3)


def test_sampler_sees_every_window_once_and_finds_its_place() -> None:
    import numpy as np

    stream = np.arange(1000, dtype=np.int32)
    sampler = BatchSampler(stream, seed=3)
    first = sampler.draw(rows=30, length=32)
    assert len({int(row[0]) for row in first}) == 30
    assert torch.equal(first[:, 1:], first[:, :-1] + 1)
    other = BatchSampler(stream, seed=3)
    other.load_state_dict(sampler.state_dict())
    assert torch.equal(sampler.draw(rows=5, length=32), other.draw(rows=5, length=32))
    with pytest.raises(ValueError, match="too few"):
        sampler.draw(rows=1, length=1000)


def test_orthogonalised_matrices_are_nearly_orthogonal() -> None:
    for shape in ((3, 16, 48), (3, 48, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.4
        assert values.max() < 1.4


def test_schedule_rises_holds_and_ends_at_zero() -> None:
    factors = [trapezoid(i / 100, warmup=0.1, decay=0.3) for i in range(101)]
    assert factors[0] > 0
    assert factors[10] == factors[70] == 1
    assert factors[100] == 0
    assert factors == sorted(factors[:50]) + sorted(factors[50:], reverse=True)


def test_budget_ends_with_whichever_comes_first() -> None:
    budget = Budget(minutes=1, tokens=100)
    assert budget.fraction(seconds=30, tokens=10) == 0.5
    assert budget.fraction(seconds=3, tokens=80) == 0.8
    assert budget.fraction(seconds=90, tokens=0) == 1
    with pytest.raises(ValueError, match="above zero"):
        Budget()


def test_recipe_rejects_impossible_shapes() -> None:
    with pytest.raises(ValueError, match="must divide"):
        dataclasses.replace(TINY_TARGET, hidden=33)
