"""A target to go on from: its weights, its tokenizer and its shape decide those of the next one."""

from __future__ import annotations

from typing import NamedTuple

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from engine.models import load_model
from engine.training.models import ModelShape
from engine.training.target import Stage

PEAK = 0.6
"""Share of the learning rates with which a trained model goes on: with all of them it would first
forget much of what it knows."""
DECAY = 0.6
"""Share of the budget over which they fall to zero: there is little to explore."""
STAGES = (Stage(0, 512, 4), Stage(0.6, 1024, 2))
"""Windows: no short ones, and few at a time, since many small steps change it sooner than a few
large ones."""


class Start(NamedTuple):
    """A trained model as a beginning."""

    name: str
    content_hash: str
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    shape: ModelShape
    context: int


def load_start(name_or_path: str, *, device: str) -> Start:
    """Load a model to go on from, in float32.

    Raises:
        UserError: it cannot be loaded.
        ValueError: it is no Llama, or its tokenizer is not one that the recipe can use.
    """
    loaded = load_model(name_or_path, dtype="float32", device=device)
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, LlamaForCausalLM):
        raise ValueError(
            f"cannot go on from {loaded.name}: it is a {type(model).__name__}, and the recipe "
            "trains Llama models"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or (
        model.config.eos_token_id != tokenizer.eos_token_id
    ):
        raise ValueError(
            f"cannot go on from {loaded.name}: it needs a tokenizer.json and one token that ends "
            "a text, the same in tokenizer and model"
        )
    config = model.config
    shape = ModelShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        intermediate=config.intermediate_size,
        kv_heads=config.num_key_value_heads,
        tied=config.tie_word_embeddings,
    )
    return Start(loaded.name, loaded.content_hash, model, tokenizer, shape, loaded.context_length)
