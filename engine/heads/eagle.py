"""The EAGLE head: one decoder layer that carries the target's features on, token by token.

EAGLE-3 (Li et al., 2503.01840, section 3). Row t of the head reads the embedding of token t + 1 and
the feature of position t, and foretells token t + 2. The feature of a token that the target has run
is `fc` of the target's states at a few depths; of a token only drafted, it is what the head itself
gave for the row before. Parameters have the names of the published checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from engine.heads.eagle_shape import EagleShape, check_fits, shape_for
from engine.heads.norms import RMSNorm, gain_of
from engine.models import LoadedModel
from engine.parts import Attend, Inside

#: how much of the usual random weights an untrained `fc` keeps
_NOISE = 0.3


class EagleAttention(nn.Module):
    """Grouped attention over rows of embedding and feature side by side, rotary positions."""

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        wide, dim = shape.embedding + shape.hidden, shape.head_dim
        self.head_dim = dim
        self.q_proj = nn.Linear(wide, shape.heads * dim, bias=False)
        self.k_proj = nn.Linear(wide, shape.kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(wide, shape.kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * dim, shape.hidden, bias=False)
        self.num_key_value_groups = shape.heads // shape.kv_heads
        # no buffer: one would be cast with the module, and half types blur far positions
        self._frequency_F, self._rope_scale = _frequencies(shape)

    def forward(self, rows_BNW: Tensor, positions_BN: Tensor, attend: Attend) -> Tensor:
        """Project, rotate, attend: (B, N, hidden)."""
        split = (*rows_BNW.shape[:-1], -1, self.head_dim)
        q, k, v = (
            linear(rows_BNW).view(split).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin = self._turn(positions_BN, q.dtype)
        out_BNHd = attend(_rotate(q, cos, sin), _rotate(k, cos, sin), v)
        projected: Tensor = self.o_proj(out_BNHd.flatten(2))
        return projected

    def _turn(self, positions_BN: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the positions' angles, (B, 1, N, head_dim / 2)."""
        frequency_F = self._frequency_F.to(positions_BN.device)
        angle = positions_BN[:, None, :, None] * frequency_F
        cos, sin = angle.cos(), angle.sin()
        if self._rope_scale != 1.0:
            cos, sin = cos * self._rope_scale, sin * self._rope_scale
        return cos.to(dtype), sin.to(dtype)


class EagleMLP(nn.Module):
    """Gated MLP with SiLU."""

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(rows)) * self.up_proj(rows))
        return out


class EagleLayer(nn.Module):
    """A decoder layer whose attention reads embedding and feature, each with a norm of its own."""

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.embedding, eps=shape.eps)
        self.hidden_norm = RMSNorm(shape.hidden, eps=shape.eps)
        self.self_attn = EagleAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, eps=shape.eps)
        self.mlp = EagleMLP(shape)

    def forward(
        self, features_BND: Tensor, embeds_BNE: Tensor, positions_BN: Tensor, attend: Attend
    ) -> Tensor:
        """The next features, (B, N, hidden)."""
        rows = torch.cat([self.input_layernorm(embeds_BNE), self.hidden_norm(features_BND)], -1)
        features_BND = features_BND + self.self_attn(rows, positions_BN, attend)
        out: Tensor = features_BND + self.mlp(self.post_attention_layernorm(features_BND))
        return out


class EagleHead(nn.Module):
    """Feature in, next feature out; `read` makes a feature of the target's states.

    The target's embeddings and, but for heads with a vocabulary of their own, its LM head are not
    part of it: whoever runs the head brings them.
    """

    kind: ClassVar[str] = "eagle"
    #: of an own LM head: how far the target's token lies above its row
    d2t: Tensor

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        self.shape = shape
        #: the folder it was loaded from; whoever loads it names that
        self.path = ""
        self.fc = nn.Linear(len(shape.points) * shape.target_hidden, shape.hidden, bias=False)
        self.midlayer = EagleLayer(shape)
        self.norm = RMSNorm(shape.hidden, eps=shape.eps)
        self.lm_head: nn.Linear | None = None
        if shape.draft_vocab:
            self.lm_head = nn.Linear(shape.hidden, shape.draft_vocab, bias=False)
            self.register_buffer("d2t", torch.zeros(shape.draft_vocab, dtype=torch.long))
        # untrained, the layer adds nothing to the feature
        nn.init.zeros_(self.midlayer.self_attn.o_proj.weight)
        nn.init.zeros_(self.midlayer.mlp.down_proj.weight)

    @classmethod
    def build(cls, sizes: dict[str, Any], target: LoadedModel) -> Self:
        """An untrained head; sizes that are not given follow the target's.

        Its features are little more than the highest states that it reads, and its norm is the
        target's: training finds its way sooner from there than from noise. Raises UserError for
        sizes that make no head, or a head of another target.
        """
        shape = shape_for(sizes, target)
        check_fits(shape, target)
        head = cls(shape)
        if shape.target_hidden == shape.hidden:
            with torch.no_grad():
                head.fc.weight.mul_(_NOISE)
                head.fc.weight[:, -shape.hidden :] += torch.eye(shape.hidden)
                head.norm.weight.copy_(gain_of(Inside.of(target.model).norm, shape.hidden))
        return head

    @classmethod
    def read_published(cls, folder: Path, target: LoadedModel) -> Self | None:
        """A head in the layout of SafeAILab/EAGLE, None where there is none."""
        from engine.heads.eagle_published import read
        from engine.heads.files import fill

        found = read(folder, target)
        if found is None:
            return None
        sizes, state = found
        head = cls.build(sizes, target)
        fill(head, state, folder)
        return head

    def sizes(self) -> dict[str, Any]:
        """All that `build` needs, as JSON."""
        return asdict(self.shape) | {"points": list(self.shape.points)}

    def read(self, states: Sequence[Tensor]) -> Tensor:
        """Features (..., hidden) of the target's states (..., target_hidden), one per point."""
        if self.shape.normed_states:
            states = [
                functional.rms_norm(state, state.shape[-1:], eps=self.shape.eps) for state in states
            ]
        out: Tensor = self.fc(torch.cat(list(states), -1))
        return out

    def forward(
        self, features_BND: Tensor, embeds_BNE: Tensor, positions_BN: Tensor, attend: Attend
    ) -> Tensor:
        """The features that follow; `norm` and the LM head make logits of them."""
        out: Tensor = self.midlayer(features_BND, embeds_BNE, positions_BN, attend)
        return out

    @cached_property
    def content_hash(self) -> str:
        """Of sizes and weights, which do not change any more once this is asked for."""
        digest = hashlib.sha256(repr(self.sizes()).encode())
        for tensor in self.state_dict().values():
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def tokens(self) -> Tensor | None:
        """Target token of each row of an own LM head, (draft_vocab); None: all, in order."""
        if self.lm_head is None:
            return None
        return torch.arange(self.shape.draft_vocab, device=self.d2t.device) + self.d2t


def _rotate(states_BHNd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = states_BHNd.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def _frequencies(shape: EagleShape) -> tuple[Tensor, float]:
    """Rotary frequencies (head_dim / 2) and the scale of cosine and sine, by transformers."""
    config = LlamaConfig(
        hidden_size=shape.heads * shape.head_dim,
        num_attention_heads=shape.heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        rope_parameters=dict(shape.rope),
    )
    rotary = LlamaRotaryEmbedding(config)
    return rotary.inv_freq.clone(), float(rotary.attention_scaling)
