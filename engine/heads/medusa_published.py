"""Heads as the authors of Medusa publish them (github.com/FasterDecoding/Medusa).

A folder with medusa_lm_head.pt or .safetensors, whose keys are `HEAD.LAYER.linear.weight`,
`HEAD.LAYER.linear.bias` and, behind the last layer, `HEAD.NUM_LAYERS.weight`, the output matrix;
config.json beside it tells medusa_num_heads, medusa_num_layers and base_model_name_or_path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.errors import UserError

FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")
_BLOCK = re.compile(r"(\d+)\.(\d+)\.linear\.(weight|bias)")
_OUTPUT = re.compile(r"(\d+)\.(\d+)\.weight")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Sizes and state of our `MedusaHeads`, None where the folder has another layout.

    Raises UserError for a damaged file and for tensors that are not of this layout.
    """
    from engine.heads.files import read_config, read_tensors

    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    state: dict[str, Tensor] = {}
    hidden = vocab = heads = layers = 0
    for name, tensor in read_tensors(path).items():
        # some files were saved from the whole model
        name = name.removeprefix("medusa_head.")
        if match := _BLOCK.fullmatch(name):
            head, layer = int(match[1]), int(match[2])
            layers = max(layers, layer + 1)
            state[f"blocks.{head}.{layer}.linear.{match[3]}"] = tensor
        elif match := _OUTPUT.fullmatch(name):
            head = int(match[1])
            vocab, hidden = tensor.shape
            state[f"heads.{head}.weight"] = tensor
        else:
            raise UserError(f"{path} has the tensor {name}, which no Medusa checkpoint has.")
        heads = max(heads, head + 1)
    if not heads or not hidden:
        raise UserError(f"{path} holds no Medusa heads.")
    config = read_config(folder) or {}
    for name, found in (("medusa_num_heads", heads), ("medusa_num_layers", layers)):
        # files with more heads than their config asks for are published too: the first count
        told = config.get(name, found)
        if told > found:
            raise UserError(f"{path} holds {found} of the {told} that config.json calls {name}.")
    wanted = int(config.get("medusa_num_heads", heads))
    state = {name: t for name, t in state.items() if int(name.split(".")[1]) < wanted}
    sizes = {"num_heads": wanted, "num_layers": layers, "tied": False}
    return sizes | {"hidden_size": hidden, "vocab_size": vocab}, state
