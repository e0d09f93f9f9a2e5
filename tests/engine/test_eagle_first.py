"""Heads of EAGLE-1 and 2 in their authors' layout: what they draft, their cache, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, LlamaConfig, Qwen2Config

from engine.errors import UserError
from engine.heads.eagle import FirstHead
from engine.heads.files import load_head
from engine.inside import capture
from engine.parts import NORMED
from engine.requests import Request
from engine.sampling import Sampling
from tests.engine.test_eagle import follow, rows_are_those_of_a_fresh_run
from tests.engine.tiny import VOCAB, decode_all, engine_for, requests, tiny, tokens_of

HIDDEN, HEADS, KV_HEADS, MIDDLE, BASE = 32, 4, 2, 48, 500.0
WARM = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=11)
TEXT = [3, 44, 17, 9, 30, 31, 2]
#: target, whether `fc` has a bias, whether the projections have, the file
LAYOUTS = [
    ("llama", False, False, "pytorch_model.bin"),
    ("mistral", True, False, "model.safetensors"),
    ("qwen2", False, True, "model.safetensors"),
    ("gpt2", True, False, "pytorch_model.bin"),
]


def eagle1(target, *, fc_bias: bool = False, qkv_bias: bool = False) -> dict[str, torch.Tensor]:
    """Random tensors as the authors store them, the target's embeddings included."""
    wide = HIDDEN * KV_HEADS // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        "layers.0.self_attn.k_proj.weight": (wide, HIDDEN),
        "layers.0.self_attn.v_proj.weight": (wide, HIDDEN),
        "layers.0.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "layers.0.mlp.gate_proj.weight": (MIDDLE, HIDDEN),
        "layers.0.mlp.up_proj.weight": (MIDDLE, HIDDEN),
        "layers.0.mlp.down_proj.weight": (HIDDEN, MIDDLE),
        "layers.0.post_attention_layernorm.weight": (HIDDEN,),
        "fc.weight": (HIDDEN, 2 * HIDDEN),
    }
    if fc_bias:
        shapes["fc.bias"] = (HIDDEN,)
    if qkv_bias:
        shapes |= {f"layers.0.self_attn.{name}_proj.bias": (size,)
                   for name, size in (("q", HIDDEN), ("k", wide), ("v", wide))}  # fmt: skip
    generator = torch.Generator().manual_seed(8)
    tensors = {
        name: torch.randn(shape, generator=generator) * (0.25 if len(shape) > 1 else 1.0)
        for name, shape in shapes.items()
    }
    return tensors | {"embed_tokens.weight": target.model.get_input_embeddings().weight.clone()}


def publish(folder: Path, tensors: dict[str, torch.Tensor], file: str, **config: Any) -> str:
    from safetensors.torch import save_file

    folder.mkdir()
    if file.endswith(".bin"):
        torch.save(tensors, folder / file)
    else:
        save_file(tensors, folder / file)
    told = {
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": MIDDLE, "num_attention_heads": HEADS, "num_hidden_layers": 1,
        "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-5, "rope_theta": BASE,
        "max_position_embeddings": 160, "vocab_size": VOCAB, "bias": "fc.bias" in tensors,
    } | config  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    return str(folder)


def theirs(tensors: dict[str, torch.Tensor], target, tokens: list[int], start: int):
    """Log-probabilities behind the last of `tokens`, by the layer as transformers has it.

    The target has run the tokens before `start`; features of the others are the head's own.
    """
    kind = Qwen2Config if "layers.0.self_attn.q_proj.bias" in tensors else LlamaConfig
    layer = AutoModel.from_config(
        kind(
            vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=MIDDLE, num_hidden_layers=1,
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": BASE},
        )
    ).eval()  # fmt: skip
    for module, name in ((layer, "norm"), (layer.layers[0], "input_layernorm")):
        setattr(module, name, torch.nn.Identity())
    own = {name: t for name, t in tensors.items() if name not in ("fc.weight", "fc.bias")}
    layer.load_state_dict(own)
    _, states = capture(target.model, (NORMED,), input_ids=torch.tensor([tokens]), use_cache=False)
    features = states[NORMED][0, : start - 1]
    embeds = target.model.get_input_embeddings()(torch.tensor(tokens))
    with torch.inference_mode():
        while True:
            both = torch.cat([embeds[1 : len(features) + 1], features], -1)
            rows = functional.linear(both, tensors["fc.weight"], tensors.get("fc.bias"))
            out = layer(inputs_embeds=rows[None], use_cache=False).last_hidden_state[0]
            if len(features) == len(tokens) - 1:
                break
            features = torch.cat([features, out[-1:]])
        return functional.log_softmax(target.model.get_output_embeddings()(out[-1]), -1)


@pytest.mark.parametrize(("architecture", "fc_bias", "qkv_bias", "file"), LAYOUTS)
def test_a_published_head_drafts_what_its_layer_says(
    tmp_path, architecture, fc_bias, qkv_bias, file
):
    target = tiny(architecture, seed=1)
    tensors = eagle1(target, fc_bias=fc_bias, qkv_bias=qkv_bias)
    folder = publish(tmp_path / "head", tensors, file)
    head = load_head(folder, target, kind="eagle")
    assert isinstance(head, FirstHead)
    options = {"head": folder, "policy": "eagle2", "nodes": 10, "depth": 3, "top_k": 3}
    engine = engine_for("eagle", options, target, None)
    engine.add(Request(0, "", tuple(TEXT), 20))
    tree = engine._drafter.propose([engine._slots[0].sequence])[0]
    assert tree.depth_M[: tree.num_nodes].max() >= 2
    for node in range(1, tree.num_nodes):
        above = [int(tree.tokens_M[n]) for n in tree.path_to(node)[1:-1]]
        expected = theirs(tensors, target, [*TEXT, *above], len(TEXT))
        token = int(tree.tokens_M[node])
        assert float(tree.draft_logprob_M[node]) == pytest.approx(float(expected[token]), abs=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize(("architecture", "fc_bias", "qkv_bias", "file"), LAYOUTS)
def test_the_output_is_that_of_plain_decoding(
    tmp_path, architecture, fc_bias, qkv_bias, file, sampling
):
    target = tiny(architecture, seed=1)
    folder = publish(tmp_path / "head", eagle1(target, fc_bias=fc_bias, qkv_bias=qkv_bias), file)
    wanted = requests(3, max_new_tokens=16)
    engine = engine_for("autoregressive", {}, target, None, sampling=sampling)
    plain = tokens_of(decode_all(engine, wanted)[0])
    for batch, policy in ((1, "eagle2"), (3, "best-first"), (3, "opt-tree")):
        options = {"head": folder, "policy": policy, "nodes": 8}
        engine = engine_for("eagle", options, target, None, sampling=sampling, batch=batch)
        assert tokens_of(decode_all(engine, wanted)[0]) == plain


@pytest.mark.parametrize("wrong", [frozenset(), frozenset({13, 21})], ids=["all", "some"])
def test_rows_after_steps_are_those_of_a_fresh_run(tmp_path, wrong):
    """Features of accepted tokens are the target's, not what the head had foretold."""
    target = tiny(seed=1)
    folder = publish(tmp_path / "head", eagle1(target), "model.safetensors")
    rows_are_those_of_a_fresh_run(target, {"head": folder, "depth": 4}, wrong)


def test_a_whole_chain_is_accepted_where_the_head_is_right(tmp_path):
    target = tiny(seed=1)
    folder = publish(tmp_path / "head", eagle1(target), "pytorch_model.bin")
    wanted = requests(2, max_new_tokens=24)
    plain = tokens_of(decode_all(engine_for("autoregressive", {}, target, None), wanted)[0])
    engine = engine_for("eagle", {"head": folder, "depth": 4}, target, None, batch=2)
    follow(engine._drafter, {r.index: [*r.prompt_ids, *plain[r.index], *[0] * 8] for r in wanted})
    done, steps = decode_all(engine, wanted)
    assert tokens_of(done) == plain
    assert len(steps) < 0.4 * sum(map(len, plain.values()))


def test_rotary_scaling_in_old_words_is_heeded(tmp_path):
    target = tiny(seed=1)
    shapes = []
    for number, rope in enumerate(
        (None, {"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0})
    ):
        folder = publish(
            tmp_path / str(number), eagle1(target), "model.safetensors", rope_scaling=rope
        )
        shapes.append(load_head(folder, target, kind="eagle"))
    plain, *scaled = (head.layer.self_attn._frequency_F for head in shapes)
    for one in scaled:
        torch.testing.assert_close(one, plain / 2)


def _with(name: str, *shape: int):
    return lambda tensors: tensors | {name: torch.zeros(shape)}


def _without(name: str):
    return lambda tensors: {n: t for n, t in tensors.items() if n != name}


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (_with("layers.0.input_layernorm.weight", 32), {}, "norms what it reads"),
        (_with("layers.1.self_attn.q_proj.weight", 32, 32), {}, "several layers"),
        (_with("embed_tokens.weight", 70, 32), {}, "70 tokens by 32.*61 by 32.*another target"),
        (_with("layers.0.mlp.gate_proj.weight", 40, 32), {}, r"gate_proj.*\(40, 32\).*\(48, 32\)"),
        (_with("layers.0.self_attn.z_proj.weight", 4), {}, "has the tensor layers.0.*z_proj"),
        (_without("layers.0.mlp.up_proj.weight"), {}, "lacks the tensor layers.0.mlp.up_proj"),
        (_with("fc.weight", 32, 96), {}, r"fc.weight.*\(32, 96\).*\(32, 64\)"),
        (dict, {"hidden_size": 64}, "target_hidden of 64, and llama one of 32"),
        (dict, {"hidden_act": "gelu"}, "only silu"),
        (dict, {"num_attention_heads": "many"}, "not of an EAGLE head"),
        (dict, {"rope_scaling": {"type": "spiral"}}, "rope_type 'spiral'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_sentence(tmp_path, change, config, words):
    target = tiny(seed=1)
    folder = publish(tmp_path / "head", change(eagle1(target)), "model.safetensors", **config)
    with pytest.raises(UserError, match=words):
        load_head(folder, target, kind="eagle")
