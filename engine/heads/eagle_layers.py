"""The decoder layers of EAGLE heads: of EAGLE-3, and of EAGLE-1 and 2.

Parameters have the names of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from engine.heads.eagle_shape import EagleShape
from engine.heads.norms import RMSNorm
from engine.parts import Attend


class EagleAttention(nn.Module):
    """Grouped attention over rows `wide` features wide, rotary positions."""

    def __init__(self, shape: EagleShape, wide: int, *, bias: bool = False) -> None:
        super().__init__()
        dim = shape.head_dim
        self.head_dim = dim
        self.q_proj = nn.Linear(wide, shape.heads * dim, bias=bias)
        self.k_proj = nn.Linear(wide, shape.kv_heads * dim, bias=bias)
        self.v_proj = nn.Linear(wide, shape.kv_heads * dim, bias=bias)
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
    """EAGLE-3's: attention reads embedding and feature, each with a norm of its own."""

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.embedding, eps=shape.eps)
        self.hidden_norm = RMSNorm(shape.hidden, eps=shape.eps)
        self.self_attn = EagleAttention(shape, shape.embedding + shape.hidden)
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


class FirstLayer(nn.Module):
    """EAGLE-1's and 2's: `fc` makes one row of embedding and feature, which a plain layer reads.

    Its features are normed ones, so there is no norm before attention.
    """

    def __init__(self, shape: EagleShape, *, fc_bias: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(shape.embedding + shape.hidden, shape.hidden, bias=fc_bias)
        self.self_attn = EagleAttention(shape, shape.hidden, bias=qkv_bias)
        self.post_attention_layernorm = RMSNorm(shape.hidden, eps=shape.eps)
        self.mlp = EagleMLP(shape)

    def forward(
        self, features_BND: Tensor, embeds_BNE: Tensor, positions_BN: Tensor, attend: Attend
    ) -> Tensor:
        """The next features, (B, N, hidden)."""
        rows = self.fc(torch.cat([embeds_BNE, features_BND], -1))
        rows = rows + self.self_attn(rows, positions_BN, attend)
        out: Tensor = rows + self.mlp(self.post_attention_layernorm(rows))
        return out


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
