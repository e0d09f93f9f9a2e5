"""A draft learns to agree with its target, and the finished pair is what it claims."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from engine.training.agreement import (
    PromptAgreement,
    chain_steps,
    held_out_loss,
    repeated_share,
    summarise,
)
from engine.training.distill import DistillRecipe, agreement_loss, build_draft, distill
from engine.training.models import ModelShape, build_model
from engine.training.pair import PairRecipe, train_pair
from engine.training.prepare import Prepared
from engine.training.progress import Budget, TrainingStopped
from engine.training.store import TeacherStore, fill_store
from engine.training.target import Stage, TargetData, TargetRecipe, train_target
from engine.training.teacher import TeacherRecipe, score_windows, teach, write_rollouts

TINY_TARGET = ModelShape(layers=2, hidden=32, heads=2, intermediate=64)
TINY_DRAFT = ModelShape(layers=1, hidden=16, heads=1, intermediate=32)
TEACHER = TeacherRecipe(prompt_lengths=(16,), new_tokens=32, rows=16, window=64, top=16)


@pytest.fixture(scope="module")
def target(tiny: Prepared, tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    recipe = TargetRecipe(
        budget=Budget(tokens=40_000),
        shape=TINY_TARGET,
        first_layers=1,
        stages=(Stage(0, 64, 8),),
        context=128,
    )
    data = TargetData(tiny.train, tiny.library, len(tiny.tokenizer), tiny.tokenizer.eos_token_id)
    return train_target(
        recipe, data, checkpoint=tmp_path_factory.mktemp("target") / "target.pt"
    ).eval()


def _agreement(target: LlamaForCausalLM, draft: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    with torch.no_grad():
        said, wanted = draft(tokens).logits.argmax(-1), target(tokens).logits.argmax(-1)
    return float((said == wanted).float().mean())


def test_distillation_raises_agreement(
    target: LlamaForCausalLM, tiny: Prepared, tmp_path: Path
) -> None:
    shards = [teach(target, tiny.library, TEACHER, shard=shard) for shard in range(8)]
    recipe = DistillRecipe(
        budget=Budget(tokens=60_000), shape=TINY_DRAFT, tokens_per_step=512, adam_lr=0.01
    )
    tokens = torch.from_numpy(tiny.held_out[:128].astype("int64"))[None]
    before = _agreement(target, build_draft(target, TINY_DRAFT, seed=0), tokens)
    draft = distill(target, shards, recipe, checkpoint=tmp_path / "draft.pt")
    assert _agreement(target, draft, tokens) > max(0.5, before + 0.2)


def test_resumed_distillation_equals_unbroken(
    target: LlamaForCausalLM, tiny: Prepared, tmp_path: Path
) -> None:
    shards = [teach(target, tiny.library, TEACHER, shard=shard) for shard in range(3)]
    recipe = DistillRecipe(budget=Budget(tokens=10_000), shape=TINY_DRAFT, tokens_per_step=512)
    whole = distill(target, shards, recipe, checkpoint=tmp_path / "whole.pt")
    steps: list[object] = []
    with pytest.raises(TrainingStopped):
        distill(
            target,
            shards,
            recipe,
            checkpoint=tmp_path / "broken.pt",
            on_progress=steps.append,
            should_stop=lambda: len(steps) == 7,
        )
    resumed = distill(target, shards, recipe, checkpoint=tmp_path / "broken.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_rollouts_are_the_targets_greedy_text(target: LlamaForCausalLM, tiny: Prepared) -> None:
    prompts = torch.from_numpy(tiny.held_out[:40].astype("int64")).view(2, 20)
    rows = write_rollouts(
        target, prompts, new_tokens=12, temperature=0, top=4, generator=torch.Generator()
    )
    expected = target.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=11,
        min_new_tokens=11,
        do_sample=False,
        eos_token_id=None,
    )
    assert rows.tokens_RT.tolist() == expected.tolist()
    again = score_windows(target, expected, top=4)
    assert (again.top_RTK[..., 0] == rows.top_RTK[..., 0]).all()
    assert rows.top_RTK[:, 19:-1, 0].tolist() == expected[:, 20:].tolist()


def test_store_goes_on_where_it_stopped(
    target: LlamaForCausalLM, tiny: Prepared, tmp_path: Path
) -> None:
    def make(shard: int):
        return teach(target, tiny.library, TEACHER, shard=shard)

    store = TeacherStore(tmp_path)
    with pytest.raises(TrainingStopped):
        fill_store(store, make, Budget(tokens=4000), should_stop=lambda: len(store) == 2)
    again = TeacherStore(tmp_path)
    assert len(again) == 2
    assert again.tokens == store.tokens
    fill_store(again, make, Budget(tokens=4000))
    assert again.tokens >= 4000
    loaded = again.load()
    assert (loaded[1].tokens_RT == make(1).tokens_RT).all()


def test_loss_is_least_where_draft_equals_target() -> None:
    logits = torch.randn(1, 5, 8)
    logprob, top = logits.log_softmax(-1).topk(8)
    same = agreement_loss(logits, top, logprob, hard=0.0)
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(same, entropy)
    assert agreement_loss(torch.randn(1, 5, 8), top, logprob, hard=0.0) > same


def test_chain_steps_count_bonus_and_correction() -> None:
    assert chain_steps([0, 0, 0, 0, 0], depth=4) == 1  # four drafted and the bonus
    assert chain_steps([1, 0, 0], depth=4) == 2  # correction; then two drafted
    assert chain_steps([5, 5, 5], depth=4) == 3
    assert repeated_share([1, 2] * 20) > 0.7
    assert repeated_share(range(40)) == 0


def test_fresh_figures_leave_repetition_out() -> None:
    tokens = [*range(20), *range(20)]
    rank = [1] * 20 + [0] * 20  # a draft that agrees on repetition only
    result = PromptAgreement(tokens, rank, repeated_share(tokens))
    assert result.fresh == [1] * 20 + [0] * 7
    assert result.opening == [1] * 20
    figures = summarise([result])
    assert figures.opening_tokens_per_step == 1
    assert figures.tokens_per_step is not None
    assert figures.tokens_per_step > 1


def test_untrained_model_knows_nothing(tiny: Prepared) -> None:
    import math

    vocab = len(tiny.tokenizer)
    model = build_model(TINY_TARGET, vocab_size=vocab, context=128, end_of_text=0, seed=0)
    assert held_out_loss(model, tiny.held_out, window=64) == pytest.approx(math.log(vocab), abs=0.2)


def test_whole_recipe_writes_a_loadable_pair(tiny_split, tmp_path: Path) -> None:
    for file in [*tiny_split.train, *tiny_split.held_out]:
        path = tmp_path / "text" / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_text(file.text)
    recipe = PairRecipe(
        target_budget=Budget(tokens=2000),
        teacher_budget=Budget(tokens=1000),
        draft_budget=Budget(tokens=1000),
        target_shape=TINY_TARGET,
        draft_shape=TINY_DRAFT,
        vocab_size=300,
        context=512,
        texts=(tmp_path / "text",),
        evaluate_tokens=16,
        target_options={"first_layers": 1, "stages": (Stage(0, 32, 8),)},
        teacher_options={"prompt_lengths": (16,), "new_tokens": 16, "rows": 4, "window": 64},
    )
    folders = {"work_dir": tmp_path / "work", "out": tmp_path / "models"}
    record = train_pair(recipe, **folders)
    for role, shape in (("target", TINY_TARGET), ("draft", TINY_DRAFT)):
        folder = tmp_path / "models" / f"pycode-{role}"
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.dtype == torch.float16
        assert model.config.num_hidden_layers == shape.layers
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert model.config.vocab_size == len(tokenizer)
        assert json.loads((folder / "training.json").read_text()) == json.loads(json.dumps(record))
        assert "Held-out loss" in (folder / "README.md").read_text()

    # Another shape in the same work folder: a draft starts anew, a target is refused.
    other = dataclasses.replace(recipe, draft_shape=dataclasses.replace(TINY_DRAFT, layers=2))
    changed = train_pair(other, **folders)
    assert changed["target_training"]["tokens"] == record["target_training"]["tokens"]
    assert changed["parameters"]["draft"] > record["parameters"]["draft"]
    with pytest.raises(ValueError, match="another shape"):
        train_pair(dataclasses.replace(recipe, target_shape=TINY_DRAFT), **folders)

    # A target trained further writes new text for a new draft.
    further = dataclasses.replace(other, target_budget=Budget(tokens=3000))
    assert train_pair(further, **folders)["teacher"]["tokens"] >= 1000
    note = json.loads((tmp_path / "work" / "teacher.json").read_text())
    assert note["target_tokens"] >= 3000
