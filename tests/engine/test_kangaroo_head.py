"""Kangaroo's adapter: what it computes, its files, and its authors' layout of them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from engine.errors import UserError
from engine.heads.files import load_head
from engine.heads.kangaroo import KangarooAdapter, _angles, _rotated, causal
from engine.inside import Inside, capture
from tests.engine.heads_fixture import untrained, write_head
from tests.engine.tiny import CONFIGS, tiny

IDS = torch.tensor([[5, 9, 2, 40, 17, 3, 3, 8]])
POSITIONS = torch.arange(IDS.shape[1])[None]


def published(target, folder, *, kv_heads=2, layout="{}", norm="norm", **config):
    """A folder as Kangaroo's training leaves it, and the state that it should give."""
    torch.manual_seed(4)
    adapter = untrained("kangaroo", target, num_kv_heads=kv_heads)
    state = {name: torch.randn_like(tensor) for name, tensor in adapter.state_dict().items()}
    names = {name: name if name.startswith("norm") else f"layers.0.{name}" for name in state}
    names["norm.weight"] = f"{norm}.weight"
    saved = {layout.format(names[name]): tensor for name, tensor in state.items()}
    saved["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    folder.mkdir(exist_ok=True)
    torch.save(saved, folder / "pytorch_model.bin")
    told = {
        "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5, "num_hidden_layers": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told | config))
    return state


@pytest.mark.parametrize("architecture", list(CONFIGS))
@torch.inference_mode()
def test_untrained_it_drafts_as_an_early_exit_does(architecture):
    """Up to what an RMS norm makes of a target's layer norm, which takes the mean off as well."""
    target = tiny(architecture, seed=1)
    inside = Inside.of(target.model)
    adapter = untrained("kangaroo", target)
    _, states = capture(target.model, (1,), input_ids=IDS)
    normed = inside.norm(states[1])
    if type(inside.norm) is torch.nn.LayerNorm:
        normed = torch.nn.functional.rms_norm(states[1], states[1].shape[-1:]) * inside.norm.weight
    assert torch.allclose(adapter(states[1], POSITIONS, causal), normed, atol=1e-4)


def test_its_rotary_positions_are_those_of_llama():
    config = CONFIGS["llama"]
    states = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3, 50, 51, 900, 1999]])
    cos, sin = LlamaRotaryEmbedding(config)(states, positions)
    expected, _ = apply_rotary_pos_emb(states, states, cos, sin)
    assert torch.allclose(_rotated(states, _angles(positions, 8)), expected, atol=1e-5)


def test_it_sees_what_came_before_and_nothing_else():
    target = tiny(seed=1)
    adapter = untrained("kangaroo", target)
    torch.nn.init.normal_(adapter.self_attn.o_proj.weight)
    hidden = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    moved = hidden.clone()
    moved[0, 4] += 1
    one, other = (adapter(states, POSITIONS, causal) for states in (hidden, moved))
    changed = (one - other).abs().amax(-1)[0] > 1e-4
    assert changed.tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize("layout", ["{}", "module.{}", "adapter_model.{}"])
@pytest.mark.parametrize("norm", ["norm", "layers.0.post_attention_layernorm"])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_the_layout_of_its_authors_is_read(tmp_path, layout, norm, kv_heads):
    target = tiny()
    state = published(target, tmp_path / "a", layout=layout, norm=norm, kv_heads=kv_heads)
    adapter = load_head(str(tmp_path / "a"), target)
    assert isinstance(adapter, KangarooAdapter)
    assert adapter.exit_layer == 1
    assert adapter.norm.eps == 1e-5
    assert adapter.path == str(tmp_path / "a")
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_the_layout_of_its_authors_in_safetensors_and_its_exit(tmp_path):
    target = tiny()
    published(target, tmp_path, exit_layer=1)
    save_file(torch.load(tmp_path / "pytorch_model.bin"), tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    assert load_head(str(tmp_path), target, kind="kangaroo").exit_layer == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"exit_layer": 7}, r"7 layers.*has 2 \(layers 0 to 1\)"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"num_key_value_heads": 4}, "k_proj.weight.*should be"),
        ({"num_key_value_heads": "two"}, "config.json.*'two'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, config, words):
    target = tiny()
    published(target, tmp_path, **config)
    with pytest.raises(UserError, match=words):
        load_head(str(tmp_path), target)


def test_damaged_files_of_its_authors_are_refused(tmp_path):
    target = tiny()
    published(target, tmp_path)
    path = tmp_path / "pytorch_model.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_head(str(tmp_path), target)
    saved = published(target, tmp_path)
    del saved["self_attn.v_proj.weight"]
    torch.save(saved, path)
    with pytest.raises(UserError, match=r"lacks the tensor self_attn.v_proj.weight"):
        load_head(str(tmp_path), target)


def test_an_adapter_of_another_size_or_target_is_refused(tmp_path):
    target, other = tiny(), tiny("gpt2")
    folder = write_head(untrained("kangaroo", target), target, tmp_path)
    assert load_head(str(folder), target).sizes() == untrained("kangaroo", target).sizes()
    card = json.loads((tmp_path / "head.json").read_text())
    card["sizes"]["hidden_size"] = 64
    (tmp_path / "head.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="hidden size of 64"):
        load_head(str(folder), target)
    other.content_hash = "1"
    with pytest.raises(UserError, match="trained for llama"):
        load_head(str(folder), other)
