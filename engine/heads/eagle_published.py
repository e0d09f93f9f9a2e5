"""Heads as the authors of EAGLE publish them (github.com/SafeAILab/EAGLE).

EAGLE-3: a folder with config.json, that of a Llama of one layer, and model.safetensors or
pytorch_model.bin with `fc.weight`, `midlayer.*`, `norm.weight`, `lm_head.weight` and `d2t`, the
distance from each row of that LM head to the target's token. EAGLE-1 and 2 put one plain decoder
layer (`layers.0.*`) behind an `fc` of embedding and last state; their tensors do not fit this head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from engine.models import LoadedModel

FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
#: tensors that a file may hold besides: what can be derived, or is the target's own
_IGNORED = {"t2d", "embed_tokens.weight", "midlayer.self_attn.rotary_emb.inv_freq"}


def read(folder: Path, target: LoadedModel) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Sizes and state of our `EagleHead`, None where the folder has another layout.

    Raises UserError for a damaged file, and for EAGLE-1 and 2.
    """
    from engine.heads.eagle_shape import default_points
    from engine.heads.files import read_tensors
    from engine.parts import Inside

    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    config = _config(folder)
    if path is None or config is None:
        return None
    state = {name.removeprefix("model."): tensor for name, tensor in read_tensors(path).items()}
    if "fc.weight" not in state:
        return None
    if "midlayer.self_attn.q_proj.weight" not in state:
        raise UserError(
            f"{path} is of EAGLE-1 or 2: it has no midlayer.self_attn.q_proj.weight, and its layer"
            " reads one width where an EAGLE-3 head reads embedding and feature. Only EAGLE-3"
            " heads are loaded; many targets have one, or train one with `draftree train eagle`."
        )
    if config.get("norm_before_residual"):
        raise UserError(
            f"The head in {folder} adds its attention to the normed feature (norm_before_residual),"
            " which is not the layout of SafeAILab; it is not loaded."
        )
    for name in ("norm.weight", "lm_head.weight"):
        if name not in state:
            raise UserError(f"{path} lacks the tensor {name}, which an EAGLE-3 head has.")
    rows = state["lm_head.weight"].size(0)
    state.setdefault("d2t", torch.zeros(rows, dtype=torch.long))
    state = {name: tensor for name, tensor in state.items() if name not in _IGNORED}
    highest = int((torch.arange(rows) + state["d2t"]).max()) if len(state["d2t"]) == rows else -1
    if highest >= target.vocab_size:
        raise UserError(
            f"The head in {folder} drafts token {highest}, and {target.name} has"
            f" {target.vocab_size}: it was trained for another target."
        )
    return _sizes(config, state, folder, default_points(Inside.of(target.model).num_layers)), state


def _sizes(
    config: dict[str, Any], state: dict[str, Tensor], folder: Path, points: tuple[int, ...]
) -> dict[str, Any]:
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        rope = config.get("rope_parameters") or {
            "rope_type": "default", "rope_theta": config.get("rope_theta", 10000.0),
        } | (config.get("rope_scaling") or {})  # fmt: skip
        # SpecForge and SGLang name layers by what they give, vLLM's speculators by what goes in
        given = config.get("eagle_aux_hidden_state_layer_ids") or [
            layer + 1
            for layer in (config.get("eagle_config") or {}).get(
                "eagle_aux_hidden_state_layer_ids", ()
            )
        ]
        return {
            "points": tuple(given or points),
            "hidden": hidden,
            "target_hidden": int(config.get("target_hidden_size") or hidden),
            "embedding": state["midlayer.input_layernorm.weight"].size(0),
            "heads": heads,
            "kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_dim": int(config.get("head_dim") or hidden // heads),
            "intermediate": int(config["intermediate_size"]),
            "rope": rope,
            "context": int(config.get("max_position_embeddings", 2048)),
            "eps": float(config.get("rms_norm_eps", 1e-6)),
            "normed_states": False,
            "draft_vocab": state["lm_head.weight"].size(0),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is not of an EAGLE-3 head: {error!r}.") from None


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}") from None
    return found if isinstance(found, dict) else None
