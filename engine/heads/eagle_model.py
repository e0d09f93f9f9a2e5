"""An EAGLE head in the shape of a language model, so that whatever runs draft models runs it.

It has two layers. The first stands for the way from the target's states to a feature and never runs
while decoding: passes go on from the features kept at point 1 (`DRAFTING`), a row per token, and
keep what the head makes of them at point 2. Row t of a slot is the head's row t: the embedding of
token t + 1 and the feature of position t.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engine.heads.eagle import AnyEagle
from engine.inside import Inside
from engine.models import LoadedModel
from engine.parts import Part

#: points of the features that go in and of those that come out
FEATURES, NEXT_FEATURES = 1, 2
DRAFTING = Part(first=FEATURES, taps=(NEXT_FEATURES,))


class EagleModel(nn.Module):
    """The head with the target's embeddings and LM head around it."""

    #: of an own LM head: the target's token of each row
    tokens: Tensor | None

    def __init__(self, head: AnyEagle, target: LoadedModel) -> None:
        super().__init__()
        inside = Inside.of(target.model)
        shape = head.shape
        #: as far as whoever looks inside asks
        self.config: Any = LlamaConfig(hidden_size=shape.hidden, num_hidden_layers=2)
        self.config._attn_implementation = "sdpa"
        self.head = head
        self.embed = inside.embed
        self.layers = nn.ModuleList([_NoFeature(), head.layer])
        self.norm = head.norm
        self.lm_head = inside.lm_head if head.lm_head is None else head.lm_head
        text = target.model.config.get_text_config(decoder=True)
        self._soft_cap = getattr(text, "final_logit_softcapping", None)
        self._vocab_size = target.vocab_size
        self.register_buffer("tokens", head.tokens, persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: Any,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> Any:
        """Logits (B, N, V) of the tokens behind those given, as transformers' models return them.

        Only keys and values of the given cache are read and written.
        """

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            key, value = past_key_values.update(key, value, 0)
            attention = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
            out: Tensor = attention(self.head.layer.self_attn, query, key, value, attention_mask)[0]
            return out

        embeds_BNE = self.embed(input_ids)
        place = embeds_BNE[..., :1].expand(*embeds_BNE.shape[:-1], self.config.hidden_size)
        features_BND = self.layers[0](place)
        features_BND = self.layers[1](features_BND, embeds_BNE, position_ids, attend)
        return SimpleNamespace(logits=self._logits(self.norm(features_BND)[:, -logits_to_keep:]))

    def _logits(self, normed: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(normed)
        if self.tokens is not None:  # the others are never drafted
            wide = logits.new_full((*logits.shape[:-1], self._vocab_size), -torch.inf)
            return wide.index_copy_(-1, self.tokens, logits)
        if self._soft_cap:
            logits = torch.tanh(logits / self._soft_cap) * self._soft_cap
        return logits


class _NoFeature(nn.Module):
    """Where nothing is kept of a token's past: a feature of zeros."""

    def forward(self, place_BND: Tensor) -> Tensor:
        return torch.zeros_like(place_BND)


def as_draft(head: AnyEagle, target: LoadedModel) -> LoadedModel:
    """The head as a model to draft for `target` with."""
    return LoadedModel(
        model=EagleModel(head, target).eval(),  # type: ignore[arg-type]
        tokenizer=target.tokenizer,
        name=f"{target.name}-eagle",
        path=head.path,
        content_hash=f"{head.content_hash}-{target.content_hash}",
        vocab_size=target.vocab_size,
        context_length=target.context_length,
        eos_ids=target.eos_ids,
        dtype=target.dtype,
        device=target.device,
        attention="sdpa",
        target_path=target.path,
    )
