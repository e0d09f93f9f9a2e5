"""Random models of real shapes that count, and a drafter of set acceptance (benchmarks/gpu.py).

Time depends on shapes alone, so weights are random; but a model whose next token is a near tie
would pass for another one in every shape of pass. These models have an output head made of their
own embeddings, shifted by one: after token t comes t + 1, by a wide margin, whatever the layers do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from engine.drafters.base import Sequence
from engine.hardware import Shape
from engine.models import DTYPES, LoadedModel
from engine.records import Verdict
from engine.shapes import optimal
from engine.target import Scores
from engine.tree import Children, TokenTree, root_only, tree_from_lists

#: layers, hidden, heads, key heads, intermediate, vocabulary
SIZES = {
    "8b": (32, 4096, 32, 8, 14336, 128256),
    "1b": (16, 2048, 32, 8, 8192, 128256),
    "small": (2, 64, 4, 2, 128, 512),
    "smaller": (1, 32, 2, 1, 64, 512),
}
_EMBEDDING_SPREAD = 4.0


class Numbers:
    """Tokens are their numbers in words."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(str(int(i)) for i in ids)


def counting(size: str, *, dtype: str, device: str, context: int) -> LoadedModel:
    """A Llama of this size with random weights, made on the device, that counts."""
    layers, hidden, heads, kv_heads, intermediate, vocabulary = SIZES[size]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=context, tie_word_embeddings=False,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=DTYPES[dtype], attn_implementation="sdpa"
        )
    model.to(device).eval().requires_grad_(False)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embedding.normal_(std=_EMBEDDING_SPREAD)
    head.copy_(embedding.roll(1, 0) / (_EMBEDDING_SPREAD * hidden**0.5))
    return LoadedModel(
        model=model, tokenizer=Numbers(), name=f"random-llama-{size}", path="",
        content_hash="random", vocab_size=vocabulary, context_length=context,
        eos_ids=frozenset(), dtype=dtype, device=device, attention="sdpa",
    )  # fmt: skip


def shape_of(loaded: LoadedModel) -> Shape:
    """What the passes of a model cost by."""
    config = loaded.model.config.get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    embedding = loaded.model.get_input_embeddings().weight
    tied = embedding is loaded.model.get_output_embeddings().weight
    return Shape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        intermediate=int(config.intermediate_size),
        vocabulary=loaded.vocab_size,
        parameters=parameters,
        read=parameters if tied else parameters - embedding.numel(),
    )


class SetAcceptance:
    """Proposes the best tree for an acceptance vector, and is right just as often as that says.

    It knows the target's greedy continuation (`script`, whole sequences by request). At every node
    on the true path the true token is child r with probability `acceptance[r]`; all other nodes
    are tokens that are wrong for sure. Draws are keyed by position: the same in every run.
    """

    children = Children.FIXED

    def __init__(
        self,
        acceptance: tuple[float, ...],
        *,
        nodes: int,
        depth: int,
        script: dict[int, list[int]],
        vocab_size: int,
    ) -> None:
        self._shape = optimal(acceptance, nodes + 1, depth)
        self._depths = self._shape.depths()
        self._cumulative = np.cumsum(acceptance)
        self._script = script
        self._vocab_size = vocab_size

    @property
    def num_nodes(self) -> int:
        """With the root."""
        return self._shape.num_nodes

    def admit(self, *sequences: Sequence) -> None:
        """Nothing is kept."""

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        """Nothing is learned."""

    def release(self, slot: int) -> None:
        """Nothing is held."""

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        return [self._tree(sequence) for sequence in sequences]

    def _tree(self, sequence: Sequence) -> TokenTree:
        script, at = self._script[sequence.noise.request], sequence.position
        deepest = min(sequence.max_depth, len(script) - at)
        if deepest < 1:
            return root_only(sequence.tokens[-1])
        right = [self._right_rank(sequence.noise.request, at + d) for d in range(deepest)]
        tokens, parents, true = [sequence.tokens[-1]], [-1], [True]
        for node in range(1, self._shape.num_nodes):
            depth = self._depths[node]
            if depth > deepest:  # nodes stand level by level
                break
            parent, rank = self._shape.parents_N[node], self._shape.rank_N[node]
            truth = script[at + depth - 1]
            hit = true[parent] and rank == right[depth - 1]
            tokens.append(truth if hit else (truth + 7 + rank) % self._vocab_size)
            parents.append(parent)
            true.append(hit)
        return tree_from_lists(tokens, parents, [0.0] * len(tokens))

    def _right_rank(self, request: int, position: int) -> int:
        draw = np.random.Generator(np.random.Philox(key=[request, position])).random()
        return int(np.searchsorted(self._cumulative, draw, side="right"))
