"""A target learns to leave early: what is left out, which exits learn, and what comes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from engine.training.batches import BatchSampler
from engine.training.exits import (
    ExitRecipe,
    dropout_rates,
    exit_losses,
    exit_states,
    exit_weights,
    measure_exits,
)
from engine.training.models import ModelShape, build_model
from engine.training.optim import Optimisers
from engine.training.pair import PairRecipe, train_pair
from engine.training.prepare import Prepared
from engine.training.progress import Budget, PairProgress, TrainingStopped, trapezoid
from engine.training.target import Stage, TargetData, TargetRecipe, train_target

SHAPE = ModelShape(layers=4, hidden=32, heads=2, intermediate=64)
RECIPE = TargetRecipe(
    budget=Budget(tokens=24 * 256),
    shape=SHAPE,
    first_layers=2,
    stages=(Stage(0, 32, 8), Stage(0.5, 64, 4)),
    context=128,
    micro_tokens=128,  # two passes a step
)
EXITS = ExitRecipe(layer_dropout=0.5, exit_loss=2.0, rotation=2)


def _data(tiny: Prepared) -> TargetData:
    return TargetData(tiny.train, tiny.library, len(tiny.tokenizer), tiny.tokenizer.eos_token_id)


@pytest.fixture
def model() -> LlamaForCausalLM:
    made = build_model(SHAPE, vocab_size=300, context=64, end_of_text=0, seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return made


def _tokens(rows: int = 3) -> torch.Tensor:
    return torch.randint(0, 300, (rows, 24), generator=torch.Generator().manual_seed(3))


def test_exits_are_the_states_between_layers(model: LlamaForCausalLM) -> None:
    tokens = _tokens()
    with torch.no_grad():
        found = exit_states(model, tokens, exits=[1, 3])
        whole = model(tokens, output_hidden_states=True)
        assert sorted(found) == [1, 3, 4]
        for exit_ in (1, 3):
            assert torch.equal(found[exit_], whole.hidden_states[exit_])
        assert torch.equal(model.lm_head(model.model.norm(found[4])), whole.logits)


def test_rows_leave_out_layers_of_their_own_and_nothing_is_rescaled(
    model: LlamaForCausalLM,
) -> None:
    """Each row is what a model without the left-out layers gives for it alone."""
    tokens, rates = _tokens(rows=16), [0.0, 0.5, 0.5, 0.5]
    with torch.no_grad():
        found = exit_states(model, tokens, exits=[], rates=rates, draws=np.random.default_rng(5))[4]
        draws = np.random.default_rng(5)
        stay = np.array([draws.random(16) >= rate if rate else np.ones(16, bool) for rate in rates])
        assert 0 < stay[1:].sum() < stay[1:].size
        layers = list(model.model.layers)
        for row in range(16):
            kept = [layer for layer, on in zip(layers, stay[:, row], strict=True) if on]
            model.model.layers = torch.nn.ModuleList(kept)
            alone = exit_states(model, tokens[row : row + 1], exits=[])[len(kept)]
            torch.testing.assert_close(found[row : row + 1], alone)


def test_dropout_grows_exponentially_and_with_the_curriculum() -> None:
    rates = dropout_rates(5, most=0.2)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)
    grown = np.diff(rates)
    assert np.allclose(grown[1:] / grown[:-1], 2 ** (1 / 4))
    assert dropout_rates(5, most=0.2, curriculum=0.0) == [0.0] * 5
    assert dropout_rates(1, most=0.2) == [0.0]


def test_exits_take_turns_and_weigh_more_the_deeper_they_are() -> None:
    turns = [exit_weights(8, scale=2.0, step=step, rotation=3) for step in range(3, 6)]
    seen = [exit_ for turn in turns for exit_ in turn]
    assert sorted(seen) == [1, 2, 3, 4, 5, 6, 7]
    assert max(map(len, turns)) == 3
    assert turns[0] == {3: 0.75, 6: 1.5}
    assert exit_weights(8, scale=0.0, step=0, rotation=3) == {}


def test_loss_is_the_weighted_mean_over_the_exits_of_the_step(model: LlamaForCausalLM) -> None:
    batch = _tokens()
    recipe = ExitRecipe(exit_loss=2.0, rotation=2)
    with torch.no_grad():
        total, full = exit_losses(model, batch, recipe, step=1, draws=np.random.default_rng(0))
        states = model(batch[:, :-1], output_hidden_states=True)
        wanted = functional.cross_entropy(states.logits.flatten(0, 1), batch[:, 1:].flatten())
        torch.testing.assert_close(full, wanted)
        parts = {4: (1.0, full)}
        for exit_, weight in ((1, 0.5), (3, 1.5)):
            logits = model.lm_head(model.model.norm(states.hidden_states[exit_]))
            loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            parts[exit_] = (weight, loss)
        mean = sum(w * loss for w, loss in parts.values()) / sum(w for w, _ in parts.values())
        torch.testing.assert_close(total, mean)


def test_without_exits_training_is_what_it_was(tiny: Prepared, tmp_path: Path) -> None:
    """Bit for bit a plain loop of next-token loss."""
    recipe = dataclasses.replace(RECIPE, first_layers=4, stages=(Stage(0, 32, 8),))
    trained = train_target(recipe, _data(tiny), checkpoint=tmp_path / "t.pt")
    data = _data(tiny)
    plain = build_model(
        SHAPE, vocab_size=data.vocab_size, context=128, end_of_text=data.end_of_text, seed=0
    ).train()
    optimisers = Optimisers(plain, matrix_lr=0.02, adam_lr=0.004, weight_decay=0.05)
    main, anneal = BatchSampler(data.main, seed=0), BatchSampler(data.anneal, seed=1)
    for step in range(24):
        fraction = step / 24
        batch = (main if fraction < 0.7 else anneal).draw(rows=8, length=32)
        for part in batch.split(4):
            logits = plain(part[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            (loss * 0.5).backward()
        optimisers.step(scale=trapezoid(fraction, warmup=0.02, decay=0.3), clip=1.0)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("stop_after", [5, 17])
def test_resumed_training_with_exits_equals_unbroken(
    tiny: Prepared, tmp_path: Path, stop_after: int, goes_on: bool
) -> None:
    recipe = dataclasses.replace(RECIPE, exits=EXITS)
    start = None
    if goes_on:
        start = train_target(RECIPE, _data(tiny), checkpoint=tmp_path / "start.pt")
    whole = train_target(recipe, _data(tiny), checkpoint=tmp_path / "whole.pt", start=start)
    seen: list[PairProgress] = []
    with pytest.raises(TrainingStopped):
        train_target(
            recipe,
            _data(tiny),
            checkpoint=tmp_path / "broken.pt",
            start=start,
            on_progress=seen.append,
            should_stop=lambda: len(seen) == stop_after,
        )
    resumed = train_target(recipe, _data(tiny), checkpoint=tmp_path / "broken.pt", start=start)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_going_on_with_exits_makes_them_better_and_keeps_the_model(
    tiny: Prepared, tmp_path: Path
) -> None:
    plain = dataclasses.replace(RECIPE, budget=Budget(tokens=12_000), first_layers=4)
    start = train_target(plain, _data(tiny), checkpoint=tmp_path / "start.pt")
    before = {name: value.clone() for name, value in start.state_dict().items()}
    figures = measure_exits(start, tiny.held_out, window=64)
    recipe = dataclasses.replace(
        plain, peak=0.5, exits=dataclasses.replace(EXITS, layer_dropout=0.1)
    )
    trained = train_target(recipe, _data(tiny), checkpoint=tmp_path / "t.pt", start=start)
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in before.items())
    learnt = measure_exits(trained, tiny.held_out, window=64)
    assert [one.layer for one in learnt] == [1, 2, 3, 4]
    assert learnt[-1].agreement == 1
    for old, new in zip(figures[:-1], learnt[:-1], strict=True):
        assert new.agreement > old.agreement + 0.1
        assert new.loss - learnt[-1].loss < 0.6 * (old.loss - figures[-1].loss)
    assert learnt[-1].loss < figures[-1].loss + 0.1


def test_a_target_alone_goes_on_from_a_model(tiny_split, tmp_path: Path) -> None:
    for file in [*tiny_split.train, *tiny_split.held_out]:
        path = tmp_path / "text" / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_text(file.text)
    first = PairRecipe(
        target_budget=Budget(tokens=4000),
        teacher_budget=Budget(tokens=1000),
        draft_budget=Budget(tokens=1000),
        target_shape=SHAPE,
        draft=False,
        vocab_size=300,
        context=128,
        texts=(tmp_path / "text",),
        target_options={"stages": (Stage(0, 32, 8),)},
    )
    out = tmp_path / "models"
    record = train_pair(first, work_dir=tmp_path / "one", out=out, name="first")
    assert sorted(path.name for path in out.iterdir()) == ["first"]
    assert set(record["parameters"]) == {"target"}
    assert "exits" not in record
    assert "Agreement" not in (out / "first" / "README.md").read_text()

    onward = dataclasses.replace(
        first,
        start=str(out / "first"),
        target_shape=ModelShape(layers=8, hidden=384, heads=6, intermediate=1024),
        exits=EXITS,
        target_options={},
    )
    calls = {"work_dir": tmp_path / "two", "out": out, "name": "second"}
    record = train_pair(onward, **calls, command="draftree train pair --from first")
    model = LlamaForCausalLM.from_pretrained(out / "second")
    assert model.dtype == torch.float16
    assert (model.config.num_hidden_layers, model.config.vocab_size) == (4, 300)
    kept = json.loads((out / "second" / "training.json").read_text())
    assert kept["recipe"]["exits"] == dataclasses.asdict(EXITS)
    assert kept["recipe"]["start"] == "first"
    assert [len(kept["exits"][when]) for when in ("before", "trained")] == [4, 4]
    assert kept["exits"]["trained"][-1]["loss"] == pytest.approx(
        record["held_out_loss"]["target"], abs=0.01
    )
    card = (out / "second" / "README.md").read_text()
    for words in ("goes on from `first`", "layer dropout 0.5", "weight 2", "loss before"):
        assert words in card
    assert str(tmp_path) not in card

    # Done is done, and another recipe's work folder is refused.
    again = train_pair(onward, **calls)
    assert again["target_training"]["steps"] == kept["target_training"]["steps"]
    assert again["held_out_loss"] == kept["held_out_loss"]
    for other in (
        dataclasses.replace(onward, exits=dataclasses.replace(EXITS, exit_loss=1.0)),
        dataclasses.replace(onward, exits=ExitRecipe()),
        dataclasses.replace(onward, start=str(out / "second")),
    ):
        with pytest.raises(ValueError, match="exit training"):
            train_pair(other, **calls)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_dropout": 1.0}, "chance from 0"),
        ({"layer_dropout": float("nan")}, "chance from 0"),
        ({"exit_loss": -1.0}, "weight from 0"),
        ({"exit_loss": float("nan")}, "weight from 0"),
        ({"rotation": 0}, "at least 1"),
    ],
)
def test_impossible_amounts_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExitRecipe(**values)
