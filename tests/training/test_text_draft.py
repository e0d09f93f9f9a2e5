"""A draft of bytes: its tokenizer, its recipe from end to end, and how its spelling is judged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.models import LoadedModel, load_model
from engine.training.batches import encode_files
from engine.training.models import ModelShape, build_model, reload
from engine.training.prepare import Prepared
from engine.training.progress import Budget, PairProgress, TrainingStopped
from engine.training.spelling import loss_by_position, measure_spelling
from engine.training.target import Stage
from engine.training.text_draft import TextDraftRecipe, rewrite, train_text_draft
from engine.training.tokenizer import END_OF_TEXT, byte_tokenizer
from tests.training.test_corpus_and_tokenizer import HOSTILE

TINY = ModelShape(layers=1, hidden=16, heads=1, intermediate=32)


@pytest.fixture(scope="module")
def target(tiny: Prepared, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """An untrained target of the tiny corpus's own tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "target"
    model = build_model(
        TINY, vocab_size=len(tiny.tokenizer), context=512,
        end_of_text=tiny.tokenizer.eos_token_id, seed=1,
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    reload(model, tiny.tokenizer, folder)
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def recipe(target: LoadedModel, tiny_split, tmp_path_factory) -> TextDraftRecipe:
    text = tmp_path_factory.mktemp("text")
    for file in [*tiny_split.train, *tiny_split.held_out]:
        (text / file.path).write_text(file.text)
    return TextDraftRecipe(
        budget=Budget(tokens=3000),
        writing_budget=Budget(tokens=200),
        target=target.path,
        shape=TINY,
        context=256,
        texts=(text,),
        evaluate_tokens=12,
        writing_options={"prompt_lengths": (16,), "new_tokens": 16, "rows": 4},
        draft_options={"stages": (Stage(0, 32, 8),)},
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_tokens_are_bytes(text: str, tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded.encode(text)
    assert loaded.decode(ids) == text
    if END_OF_TEXT not in text:
        assert ids == list(text.encode())
    assert (len(loaded), loaded.eos_token_id, loaded.bos_token) == (257, 256, None)


def test_files_are_encoded_in_order_whatever_their_number(tiny_split) -> None:
    files = tiny_split.train * 20  # more than are encoded at once
    stream = encode_files(files, byte_tokenizer())
    assert stream.tolist() == [x for file in files for x in [*file.text.encode(), 256]]


def test_recipe_writes_a_loadable_draft_and_goes_on_where_it_stopped(
    recipe: TextDraftRecipe, tmp_path: Path
) -> None:
    folders = {"work_dir": tmp_path / "work", "out": tmp_path / "models" / "bytes"}
    seen: list[PairProgress] = []
    with pytest.raises(TrainingStopped):
        train_text_draft(
            recipe, **folders, on_progress=seen.append,
            should_stop=lambda: bool(seen) and seen[-1].phase == "draft",
        )  # fmt: skip
    assert (tmp_path / "work" / "draft.pt").exists()
    record = train_text_draft(recipe, **folders, command="draftree train bytes")
    model = AutoModelForCausalLM.from_pretrained(folders["out"])
    tokenizer = AutoTokenizer.from_pretrained(folders["out"])
    assert model.dtype == torch.float16
    assert model.config.vocab_size == len(tokenizer) == 257
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.max_position_embeddings == 256
    assert json.loads((folders["out"] / "training.json").read_text()) == record
    assert record["held_out_loss"]["draft"] < np.log(257) - 0.3
    assert record["written"]["tokens"] >= 200
    card = (folders["out"] / "README.md").read_text()
    for words in ("Held-out loss", "Loss by position", "draftree train bytes", "opening"):
        assert words in card
    assert str(tmp_path) not in card

    # Another shape in the same work folder starts anew, and what the target wrote is kept.
    other = dataclasses.replace(recipe, shape=dataclasses.replace(TINY, layers=2))
    changed = train_text_draft(other, **folders)
    assert changed["parameters"]["draft"] > record["parameters"]["draft"]
    assert changed["written"] == record["written"]


def test_what_the_target_wrote_becomes_bytes(target: LoadedModel) -> None:
    from engine.training.teacher import ScoredRows

    end = target.tokenizer.eos_token_id
    row = [*target.tokenizer.encode("x = 1\n"), end, *target.tokenizer.encode("y")]
    scored = ScoredRows(np.array([row], np.int32), np.zeros(0), np.zeros(0))
    stream = rewrite([scored], target, byte_tokenizer())
    assert stream.tolist() == [*b"x = 1\n", 256, *b"y", 256]


def test_a_token_counts_where_all_its_bytes_are_right(target: LoadedModel) -> None:
    """Against the model's own choices, taken one byte at a time."""
    tokenizer = byte_tokenizer()
    draft = build_model(TINY, vocab_size=257, context=512, end_of_text=256, seed=2)
    for parameter in draft.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prompt = target.tokenizer.encode("def function_1(self, value):\n")
    result = measure_spelling(target, draft, tokenizer, prompt, new_tokens=10)
    assert len(result.rank) == len(result.tokens)
    before = target.tokenizer.decode(prompt)
    for at, rank in enumerate(result.rank):
        text = before + target.tokenizer.decode(result.tokens[:at])
        whole = before + target.tokenizer.decode(result.tokens[: at + 1])
        if "\ufffd" in whole:
            break
        ids, wanted = tokenizer.encode(text), tokenizer.encode(whole)
        while len(ids) < len(wanted):
            with torch.no_grad():
                ids.append(int(draft(torch.tensor([ids])).logits[0, -1].argmax()))
        assert (rank == 0) == (ids == wanted)


def test_loss_by_position_finds_where_text_begins_to_help() -> None:
    """A model that only knows the last token gains nothing from a longer text."""
    model = build_model(TINY, vocab_size=257, context=512, end_of_text=256, seed=0)
    stream = np.random.default_rng(0).integers(0, 256, 4000).astype(np.int32)
    found = loss_by_position(model, stream, length=512, windows=3)
    assert list(found) == ["0-128", "128-256", "256-512"]
    assert all(abs(value - np.log(257)) < 0.5 for value in found.values())
