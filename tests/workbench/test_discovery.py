"""Models of this machine: found by small files, judged in plain words, never loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench import discovery
from workbench.discovery import amount, find, fit, label, models, vocabulary
from workbench.view.pairing import pair_says

VOCAB = {"a": 0, "b": 1, "c": 2}


def write(
    folder: Path, *, kind: str = "llama", vocab: Any = None, shapes: tuple = ((8, 4), (4,)),
    context: int = 2048, added: tuple = (), **config: Any,
) -> Path:  # fmt: skip
    folder.mkdir(parents=True)
    facts = {"model_type": kind, "vocab_size": 3, "max_position_embeddings": context} | config
    (folder / "config.json").write_text(json.dumps(facts))
    if vocab is not None:
        extra = [{"id": at, "content": text} for at, text in added]
        stored = {"model": {"vocab": vocab}, "added_tokens": extra}
        (folder / "tokenizer.json").write_text(json.dumps(stored))
    tensors = {f"t{at}": {"dtype": "F32", "shape": shape} for at, shape in enumerate(shapes)}
    head = json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode()
    if shapes:
        content = len(head).to_bytes(8, "little") + head + b"\0" * 100
        (folder / "model.safetensors").write_bytes(content)
    return folder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTREE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DRAFTREE_MODELS", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_place_is_looked_at(places: Path):
    write(places / "data" / "models" / "pycode-target", vocab=VOCAB)
    write(places / "mine" / "family" / "big", vocab=VOCAB, shapes=((1000, 1000), (500_000,)))
    write(places / "models" / "near", vocab=VOCAB)
    hub = places / "hub" / "models--Org--Name"
    old = write(hub / "snapshots" / "0ld", vocab=VOCAB, kind="old")
    write(hub / "snapshots" / "new", vocab=VOCAB, kind="qwen3")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("new\n")
    write(places / "hub" / "models--Org--Unnamed" / "snapshots" / "only", vocab=VOCAB)
    (places / "hub" / "models--Org--Empty" / "snapshots").mkdir(parents=True)
    (places / "mine" / "notes").mkdir()
    found = {model.name: model for model in models()}
    assert list(found) == [
        "pycode-target", str(places / "mine" / "family" / "big"), "models/near", "Org/Name",
        "Org/Unnamed",
    ]  # fmt: skip
    assert found["Org/Name"].kind == "qwen3"
    big = found[str(places / "mine" / "family" / "big")]
    assert (big.parameters, big.vocab_size, big.context) == (1_500_000, 3, 2048)
    assert label(big) == "family/big · llama · 1.5 M · 0 MB"
    assert label(found["Org/Name"]).startswith("Org/Name · qwen3")
    assert find("Org/Name", list(found.values())).kind == "qwen3"
    assert find(str(old), list(found.values())).kind == "old"
    assert find("Org/Nowhere", list(found.values())) is None


@pytest.mark.parametrize(
    ("config", "content", "said"),
    [
        ({"kind": "rwkv"}, None, "recurrence"),
        ({"kind": "t5", "is_encoder_decoder": True}, None, "encoder-decoder"),
        ({"architectures": ["BertForMaskedLM"]}, None, "not a causal language model"),
        ({"architectures": [7]}, None, "malformed"),
        ({"shapes": ()}, None, "no safetensors files"),
    ],
)
def test_what_cannot_decode_says_why(places: Path, config: dict, content, said: str):
    write(places / "mine" / "one", vocab=VOCAB, **config)
    (model,) = models()
    assert said in model.problem
    word = pair_says("autoregressive", model.name, None, [model])
    assert word is not None
    assert word.works is False
    assert fit(model, model).works is False


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "llama", "vocab_size": "x", "text_config": 3}'),
        ("model.safetensors", b"\xff" * 20),
        ("model.safetensors", b""),
        ("model.safetensors", (5).to_bytes(8, "little") + b"[1,2]"),
        ("tokenizer.json", b"no json"),
        ("tokenizer.json", b'{"model": {"vocab": 7}}'),
    ],
)
def test_damaged_files_break_nothing(places: Path, file: str, content: bytes):
    good = write(places / "mine" / "good", vocab=VOCAB)
    bad = write(places / "mine" / "bad", vocab=VOCAB)
    (bad / file).write_bytes(content)
    known = models()
    assert str(good) in [model.name for model in known]
    for model in known:
        fit(known[0], model)
        label(model)


def test_whether_two_fit(places: Path):
    mine = places / "mine"
    big = write(mine / "big", vocab=VOCAB, shapes=((1000, 1000),), context=4096)
    write(mine / "small", vocab=VOCAB, shapes=((100, 1000),), context=512)
    write(mine / "close", vocab=VOCAB, shapes=((800, 1000),), context=4096)
    write(mine / "other", vocab={"a": 1, "b": 0, "c": 2, "d": 3})
    write(mine / "silent")
    write(mine / "unigram", vocab=[["a", -1.0], ["b", -2.0]], added=((2, "c"),))
    known = {Path(model.name).name: model for model in models()}
    found = fit(known["big"], known["small"])
    assert found.works is True
    assert "same vocabulary of 3 tokens" in found.sentence
    assert "10 times as large (1.0 M and 100 k parameters)" in found.sentence
    assert "512 tokens is shorter than the target's 4,096" in found.sentence
    assert "hardly pay" in fit(known["big"], known["close"]).sentence
    assert "larger one" in fit(known["small"], known["big"]).sentence
    differs = fit(known["big"], known["other"])
    assert differs.works is False
    assert "3 and 4 tokens, 3 of the draft's mean something else" in differs.sentence
    assert fit(known["big"], known["silent"]).works is None
    assert fit(known["big"], known["unigram"]).works is True
    assert "same model" in fit(known["big"], known["big"]).sentence
    assert vocabulary(big) == VOCAB
    (big / "tokenizer.json").unlink()
    assert vocabulary(big) is None


def test_what_is_said_of_a_pair_follows_the_method(places: Path):
    write(places / "mine" / "big", vocab=VOCAB)
    write(places / "mine" / "small", vocab={"z": 0})
    small, big = sorted(models(), key=lambda model: model.name.endswith("big"))
    known = [small, big]
    assert pair_says("dynamic-tree", "", None, known) is None
    assert pair_says("dynamic-tree", big.name, "", known).works is False
    assert pair_says("dynamic-tree", big.name, small.name, known).works is False
    assert pair_says("autoregressive", big.name, small.name, known).works is True
    assert pair_says("dynamic-tree", big.name, "org/away", known).works is None
    assert "hub" in pair_says("dynamic-tree", "org/away", None, known).sentence
    assert "no model folder" in pair_says("dynamic-tree", "/no/where", None, known).sentence
    assert pair_says("nope", big.name, None, known).works is False


def test_no_weights_are_read_and_nothing_is_fetched(places: Path, monkeypatch):
    write(places / "mine" / "one", vocab=VOCAB)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded")

    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(f"engine.models.{name}.from_pretrained", refuse)
    assert len(discovery.models()) == 1
    assert [amount(n) for n in (7, 1_200, 12_000, 1_500_000, 494_000_000, 7_000_000_000)] == [
        "7", "1.2 k", "12 k", "1.5 M", "494 M", "7.0 B",
    ]  # fmt: skip
