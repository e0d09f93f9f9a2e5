"""Bad models and prompts, each with a sentence; and nothing half-loaded."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BloomConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from engine.errors import DecodeError, UserError
from engine.models import load_model
from engine.pairing import check_same_vocabulary
from engine.requests import Request
from engine.sampling import Sampling
from tests.engine.tiny import (
    CONFIGS,
    TOKENIZER,
    VOCAB,
    decode_all,
    engine_for,
    near,
    requests,
    tiny,
)


def save(folder: Path, config=None, *, vocab_size: int = VOCAB) -> Path:
    """A tiny model with a word tokenizer in a folder."""
    config = config or CONFIGS["llama"]
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    vocab = {f"w{i}": i for i in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt-neox", "qwen3", "gemma3"])
def test_local_folders_load_and_decode(tmp_path, architecture):
    loaded = load_model(str(save(tmp_path, CONFIGS[architecture])), device="cpu")
    assert (loaded.vocab_size, loaded.context_length) == (VOCAB, 160)
    assert loaded.path == str(tmp_path)
    done, _ = decode_all(engine_for("speculative", {}, loaded, loaded), requests(2))
    assert [len(r.token_ids) for r in done.values()] == [24, 25]


def test_content_hash_follows_the_weights(tmp_path):
    one = load_model(str(save(tmp_path / "a")), device="cpu")
    again = load_model(str(tmp_path / "a"), device="cpu")
    other = load_model(str(save(tmp_path / "b")), device="cpu")
    assert one.content_hash == again.content_hash != other.content_hash


def test_unknown_paths(tmp_path):
    for name in ("no-such-model", "./nowhere", str(tmp_path / "x"), "a/b/c"):
        with pytest.raises(UserError, match="no model folder"):
            load_model(name, device="cpu")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        load_model(str(tmp_path / "file"), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(str(tmp_path / "empty"), device="cpu")


def test_a_hub_id_that_cannot_be_had_is_a_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="someone/some-model cannot be loaded"):
        load_model("someone/some-model", device="cpu")


def test_damaged_files(tmp_path):
    folder = save(tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_model(str(folder), device="cpu")
    weights.unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(str(folder), device="cpu")
    (folder / "config.json").write_text("{not json")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(str(folder), device="cpu")
    (folder / "config.json").write_text(json.dumps({"model_type": "frobnicator"}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(str(folder), device="cpu")


def test_what_is_no_decoder_is_refused(tmp_path):
    bert = BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(bert).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="not a causal language model"):
        load_model(str(tmp_path / "bert"), device="cpu")
    T5Config(vocab_size=VOCAB, d_model=16).save_pretrained(tmp_path / "t5")
    with pytest.raises(UserError, match="encoder-decoder"):
        load_model(str(tmp_path / "t5"), device="cpu")
    BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2).save_pretrained(
        tmp_path / "bloom"
    )
    with pytest.raises(UserError, match="ALiBi"):
        load_model(str(tmp_path / "bloom"), device="cpu")


def test_devices_and_dtypes():
    with pytest.raises(UserError, match="float8"):
        load_model("x", dtype="float8")
    with pytest.raises(UserError, match="Device 'tpu'"):
        load_model("x", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="No CUDA device"):
            load_model("x", device="cuda")


def test_vocabularies_that_differ():
    class Other:
        def get_vocab(self):
            return TOKENIZER.get_vocab() | {"7": 8}

    target = tiny()
    draft = replace(near(target), tokenizer=Other())
    with pytest.raises(UserError, match=r"vocabularies differ.*1 of the latter"):
        engine_for("speculative", {}, target, draft)
    check_same_vocabulary(target, near(target))


def test_a_method_without_its_draft():
    with pytest.raises(UserError, match="needs a draft model"):
        engine_for("static-tree", {}, tiny(), None)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [((), "prompt is empty"), (tuple([1] * 160), "has 160 tokens"), ((1, 999), "token 999")],
)
def test_prompts_that_cannot_run(prompt, message):
    engine = engine_for("autoregressive", {}, tiny(), None)
    with pytest.raises(UserError, match=message):
        engine.add(Request(0, "", prompt, 5))
    assert engine.num_free
    assert not engine.busy


@pytest.mark.parametrize("method", ["autoregressive", "dynamic-tree"])
def test_nan_weights_stop_the_run_with_a_sentence(method):
    target = tiny()
    draft = near(target)
    target.model.lm_head.weight[3, 3] = float("nan")
    engine = engine_for(method, {}, target, draft)
    engine.add(requests(1)[0])
    with pytest.raises(DecodeError, match="NaN or infinite logits in float32"):
        engine.step()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("method", ["speculative", "dynamic-tree", "universal"])
def test_nan_in_the_draft_is_said_by_its_name(method, temperature):
    target = tiny()
    draft = dataclasses.replace(near(target), name="the draft")
    draft.model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    sampling = Sampling(temperature=temperature)
    engine = engine_for(method, {}, target, draft, sampling=sampling)
    engine.add(requests(1)[0])
    with pytest.raises(DecodeError, match="the draft gave NaN or infinite logits"):
        engine.step()


def test_a_draft_that_reads_too_little_is_refused():
    target = tiny()
    short = dataclasses.replace(near(target), name="short", context_length=40)
    with pytest.raises(UserError, match=r"short reads 40 tokens, and .* may have 100"):
        engine_for("speculative", {}, target, short, capacity=100)
    decode_all(engine_for("universal", {}, target, short), requests(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"temperature": -1.0}, "temperature is -1"), ({"temperature": float("nan")}, "temperature"),
     ({"top_k": -3}, "top_k is -3"), ({"top_p": 0.0}, "top_p is 0"),
     ({"top_p": 1.5}, "top_p is 1.5")],
)  # fmt: skip
def test_sampling_values(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**values)


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [({"policy": "eagle2"}, {"children": "sampled"}, "cannot use sampled children"),
     ({}, {"verify": "multi-step"}, "cannot use sampled"),
     ({"policy": "best-first"}, {"verify": "multi-step", "children": "coupled"}, "for sampled"),
     ({"policy": "best-first"}, {"verify": "magic"}, "Verification rule 'magic'"),
     ({"policy": "none"}, {}, "one of eagle2"), ({"nodes": 0}, {}, "from 1 to 255"),
     ({"nodes": "many"}, {}, "a whole number"), ({"leaves": 1}, {}, "no option 'leaves'")],
)  # fmt: skip
def test_combinations_that_would_not_be_lossless_and_bad_options(options, config, message):
    target = tiny()
    with pytest.raises(UserError, match=message):
        engine_for("dynamic-tree", options, target, near(target), sampling=Sampling(0.8), **config)


@pytest.mark.parametrize("size", [VOCAB - 9, VOCAB + 11])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, seed=2)], ids=["greedy", "t0.8"])
def test_a_draft_padded_to_another_vocabulary_size(size, sampling):
    """Qwen's models share a tokenizer and pad their embeddings differently."""
    target = tiny()
    draft = near(target)
    draft.model.resize_token_embeddings(size, mean_resizing=False)
    draft.vocab_size = size
    plain, _ = decode_all(
        engine_for("autoregressive", {}, target, None, sampling=sampling), wanted()
    )
    done, _ = decode_all(engine_for("static-tree", {}, target, draft, sampling=sampling), wanted())
    assert [r.token_ids for r in done.values()] == [r.token_ids for r in plain.values()]
    if not sampling.greedy:
        for rule in ("multi-step", "without-replacement"):
            engine = engine_for("static-tree", {}, target, draft, sampling=sampling, verify=rule)
            assert len(decode_all(engine, wanted())[0]) == 3


def wanted():
    """Requests whose tokens both sizes know."""
    return [Request(i, "", tuple(range(1, 8 + i)), 24) for i in range(3)]


def test_unknown_method():
    from engine.registry import parse_options

    with pytest.raises(UserError, match="'magic' is unknown; there are: autoregressive"):
        parse_options("magic", {})
