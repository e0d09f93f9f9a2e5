"""Heads as the authors of EAGLE publish them (github.com/SafeAILab/EAGLE).

A folder with config.json, that of a Llama of one layer, and model.safetensors or pytorch_model.bin.

- EAGLE-3: `fc.weight`, `midlayer.*`, `norm.weight`, `lm_head.weight` and `d2t`, the distance from
  each row of that LM head to the target's token.
- EAGLE-1 and 2: `fc.weight` of embedding and feature side by side, one plain decoder layer
  `layers.0.*` without `input_layernorm`, and a copy of the target's `embed_tokens.weight`. `fc` has
  a bias in the older ones, and the projections of Qwen2's have. Embeddings and LM head are the
  target's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.errors import UserError
from engine.models import LoadedModel

FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
_THIRD, _FIRST = "midlayer.", "layers.0."
_MARK = "self_attn.q_proj.weight"
#: tensors that a file may hold besides: what can be derived, or is the target's own
_IGNORED = ("t2d", "embed_tokens.weight", "rotary_emb.inv_freq")


class Published(NamedTuple):
    """What a folder holds."""

    first: bool  # of EAGLE-1 or 2
    sizes: dict[str, Any]
    state: dict[str, Tensor]


def read(folder: Path, target: LoadedModel) -> Published | None:
    """Sizes and state of our `EagleHead` or `FirstHead`, None where the folder has another layout.

    Raises UserError for a damaged file, and for heads that do not fit the target.
    """
    from engine.heads.files import read_config, read_tensors

    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    config = read_config(folder)
    if path is None or config is None:
        return None
    state = {name.removeprefix("model."): tensor for name, tensor in read_tensors(path).items()}
    if "fc.weight" not in state:
        return None
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise UserError(f"The head in {folder} has an MLP with {act}; only silu is known here.")
    if _THIRD + _MARK in state:
        return _third(config, state, path, target)
    if _FIRST + _MARK in state:
        return _first(config, state, path, target)
    raise UserError(
        f"{path} has fc.weight, but neither {_THIRD}{_MARK}, as EAGLE-3, nor {_FIRST}{_MARK}, as"
        " EAGLE-1 and 2: it is of another method."
    )


def _third(
    config: dict[str, Any], state: dict[str, Tensor], path: Path, target: LoadedModel
) -> Published:
    from engine.heads.eagle_shape import default_points
    from engine.inside import Inside

    if config.get("norm_before_residual"):
        raise UserError(
            f"The head in {path.parent} adds its attention to the normed feature"
            " (norm_before_residual), which is not the layout of SafeAILab; it is not loaded."
        )
    for name in ("norm.weight", "lm_head.weight", "midlayer.input_layernorm.weight"):
        if name not in state:
            raise UserError(f"{path} lacks the tensor {name}, which an EAGLE-3 head has.")
    rows = state["lm_head.weight"].size(0)
    state.setdefault("d2t", torch.zeros(rows, dtype=torch.long))
    highest = int((torch.arange(rows) + state["d2t"]).max()) if len(state["d2t"]) == rows else -1
    if highest >= target.vocab_size:
        raise UserError(
            f"The head in {path.parent} drafts token {highest}, and {target.name} has"
            f" {target.vocab_size}: it was trained for another target."
        )
    # SpecForge and SGLang name layers by what they give, vLLM's speculators by what goes in
    given = config.get("eagle_aux_hidden_state_layer_ids") or [
        layer + 1
        for layer in (config.get("eagle_config") or {}).get("eagle_aux_hidden_state_layer_ids", ())
    ]
    points = tuple(given or default_points(Inside.of(target.model).num_layers))
    sizes = _sizes(config, path.parent) | {
        "points": points,
        "embedding": state["midlayer.input_layernorm.weight"].size(0),
        "normed_states": False,
        "draft_vocab": rows,
    }
    return Published(False, sizes, _own(state))


def _first(
    config: dict[str, Any], state: dict[str, Tensor], path: Path, target: LoadedModel
) -> Published:
    from engine.inside import Inside

    if "layers.1." + _MARK in state:
        raise UserError(f"{path} has several layers; the layer of an EAGLE head is one.")
    if (norm := _FIRST + "input_layernorm.weight") in state:
        raise UserError(
            f"{path} has {norm}: its layer norms what it reads, which those of SafeAILab's EAGLE-1"
            " and 2 do not; it is not loaded."
        )
    embed: Any = Inside.of(target.model).embed
    theirs, own = state.get("embed_tokens.weight", embed.weight).shape, embed.weight.shape
    if theirs != own:
        raise UserError(
            f"The head in {path.parent} comes with embeddings of {theirs[0]} tokens by {theirs[1]},"
            f" and those of {target.name} are {own[0]} by {own[1]}: it was trained for another"
            " target."
        )
    sizes = _sizes(config, path.parent) | {
        "fc_bias": "fc.bias" in state,
        "qkv_bias": _FIRST + "self_attn.q_proj.bias" in state,
    }
    state.pop("lm_head.weight", None)  # the target's own, as some tools write it beside the head
    ours = {f"{_FIRST}{n}" if n.startswith("fc.") else n: t for n, t in _own(state).items()}
    return Published(True, sizes, ours)


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith(_IGNORED)}


def _sizes(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What config.json says of either layout."""
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return {
            "hidden": hidden,
            "target_hidden": int(config.get("target_hidden_size") or hidden),
            "heads": heads,
            "kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_dim": int(config.get("head_dim") or hidden // heads),
            "intermediate": int(config["intermediate_size"]),
            "rope": _rope(config),
            "context": int(config.get("max_position_embeddings", 2048)),
            "eps": float(config.get("rms_norm_eps", 1e-6)),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'} is not of an EAGLE head: {error!r}.") from None


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions as transformers takes them now, from what it took in its time."""
    if config.get("rope_parameters"):
        return dict(config["rope_parameters"])
    scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.pop("type", "default")
    return {"rope_type": kind, "rope_theta": config.get("rope_theta", 10000.0)} | scaling
