"""Shapes of the pair, and how a shallow model becomes a deep one."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Size of a Llama-architecture model."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    kv_heads: int | None = None
    """Key/value heads; the same number as `heads` when not given."""
    tied: bool = True
    """Whether the output embedding is the input embedding."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "intermediate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.hidden % self.heads or self.heads % (self.kv_heads or self.heads):
            raise ValueError(
                f"hidden ({self.hidden}) must divide by heads ({self.heads}), "
                f"and heads by kv_heads ({self.kv_heads})"
            )


TARGET_SHAPE = ModelShape(layers=8, hidden=384, heads=6, intermediate=1024)
DRAFT_SHAPE = ModelShape(layers=2, hidden=192, heads=3, intermediate=512)


def build_model(
    shape: ModelShape, *, vocab_size: int, context: int, end_of_text: int, seed: int
) -> LlamaForCausalLM:
    """Return an untrained model in float32, the same for the same seed.

    The projections that write into the residual stream start at zero, so that every layer
    begins as the identity.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        max_position_embeddings=context,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        _silence(layer)
    return model


def stack_layers(model: LlamaForCausalLM, *, layers: int) -> LlamaForCausalLM:
    """Return a model of `layers` layers that computes what `model` computes.

    Every trained layer is followed by copies of itself whose output projections are zero: they
    add nothing yet, and start from features that are already useful (after "Net2Net", Chen et
    al. 2016, and "Stacking Your Transformers", Du et al. 2024).

    Raises:
        ValueError: `layers` is not a multiple of the number of layers there are.
    """
    have = model.config.num_hidden_layers
    if layers % have:
        raise ValueError(f"cannot stack {have} layers to {layers}: not a multiple")
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    with torch.random.fork_rng(devices=[]):
        deep = LlamaForCausalLM(config)
    shallow_state = model.state_dict()
    copies = layers // have
    for index, layer in enumerate(deep.model.layers):
        prefix = f"model.layers.{index // copies}."
        layer.load_state_dict(
            {k.removeprefix(prefix): v for k, v in shallow_state.items() if k.startswith(prefix)}
        )
        if index % copies:
            _silence(layer)
    deep.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    deep.model.norm.load_state_dict(model.model.norm.state_dict())
    return place(deep, next(model.parameters()).device)


def place(model: LlamaForCausalLM, device: torch.device | str) -> LlamaForCausalLM:
    """Move a model to a device and return it."""
    nn.Module.to(model, device)
    return model


def reload(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    device: str = "cpu",
) -> LlamaForCausalLM:
    """Save a model in half precision and return what a reader of the files gets, in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = None
    place(model, "cpu").half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return place(loaded, device).eval()


def precision(device: str) -> AbstractContextManager[Any]:
    """Return bfloat16 autocast on a GPU, plain float32 elsewhere."""
    if device.startswith("cuda"):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def end_of_text(model: LlamaForCausalLM) -> int:
    """Return the token that separates files; models of this recipe have exactly one."""
    end = model.config.eos_token_id
    assert isinstance(end, int)
    return end


def _silence(layer: Any) -> None:
    """Zero what the layer adds to the residual stream."""
    nn.init.zeros_(layer.self_attn.o_proj.weight)
    nn.init.zeros_(layer.mlp.down_proj.weight)


def num_parameters(model: nn.Module) -> int:
    """Return the number of distinct parameters; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())
