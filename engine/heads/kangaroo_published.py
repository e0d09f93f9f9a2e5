"""Adapters as the authors of Kangaroo publish them (github.com/Equationliu/Kangaroo).

A folder with pytorch_model.bin or model.safetensors and a config.json in Llama's words. The adapter
is a model of one layer without an MLP: `layers.0.self_attn.{q,k,v,o}_proj.weight`,
`layers.0.input_layernorm.weight` and, behind the layer, `norm.weight`. Where a file calls the last
one `post_attention_layernorm`, that is understood too.

Such a folder does not say behind which layer the adapter sits (its authors pass that on the command
line): `exit_layer` in config.json is heeded, and without it the paper's 2 is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from engine.errors import UserError

FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIXES = ("module.", "adapter_model.", "layers.0.")
_MARK = "self_attn.q_proj.weight"
_NAMES = {
    "post_attention_layernorm.weight": "norm.weight",
    "norm.weight": "norm.weight",
    "input_layernorm.weight": "input_layernorm.weight",
    **{name: name for name in (f"self_attn.{p}_proj.weight" for p in "qkvo")},
}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path] | None:
    """Sizes and state of our `KangarooAdapter` and their file; None where the layout is another.

    Raises UserError for a damaged file, and for an adapter of several layers.
    """
    from engine.heads.files import read_config, read_tensors

    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    config = read_config(folder) or {}
    if path is None or "num_attention_heads" not in config:
        return None
    tensors = {_plain(name): tensor for name, tensor in read_tensors(path).items()}
    if _MARK not in tensors or any(".mlp." in f".{name}" for name in tensors):
        return None  # a decoder layer, or something else altogether
    if any(name.startswith("layers.") for name in tensors):
        raise UserError(f"{path} has several layers; a Kangaroo adapter is one.")
    state = {_NAMES[name]: tensor for name, tensor in tensors.items() if name in _NAMES}
    sizes = _sizes(config, folder) | {"hidden_size": int(tensors[_MARK].shape[1])}
    return sizes, state, path


def _sizes(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    try:
        told = {"exit_layer": int(config["exit_layer"])} if "exit_layer" in config else {}
        return told | {
            "num_heads": int(heads),
            "num_kv_heads": int(config.get("num_key_value_heads") or heads),
            "eps": float(config.get("rms_norm_eps", 1e-6)),
        }
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} has sizes that are none: {error}") from None


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
