"""A random pair of tiny Llama models on disk, sharing a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EOS = 0


class PairFolders(NamedTuple):
    """Model folders."""

    target: Path
    draft: Path


def write_pair(folder: Path, *, context: int = 256) -> PairFolders:
    """A target of 2 layers and a draft that is its first layer: it is right now and then."""
    target, draft = folder / "target", folder / "draft"
    big = _model(layers=2, context=context)
    small = _model(layers=1, context=context)
    small.load_state_dict(big.state_dict(), strict=False)
    with torch.no_grad():  # the second layer matters little
        for name, weight in big.model.layers[1].named_parameters():
            if "proj" in name:
                weight.mul_(0.35)
    for model, place in ((big, target), (small, draft)):
        model.save_pretrained(place)
        _tokenizer().save_pretrained(place)
    return PairFolders(target, draft)


def _model(*, layers: int, context: int) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=context,
        initializer_range=0.3,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<end>": EOS} | {char: at + 1 for at, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
