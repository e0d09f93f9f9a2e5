"""Kangaroo's adapter (Liu et al., 2404.18911, section 3.1): what lets a few layers draft.

RMSNorm, attention, residual, RMSNorm: a decoder layer without its MLP. It reads the hidden states
behind the target's first layers and has keys and values of its own; the target's LM head, which
stays as it is, reads what it gives.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from engine.errors import UserError
from engine.heads.norms import gain_of, weights_hash
from engine.inside import Inside
from engine.models import LoadedModel
from engine.parts import Attend

ROPE_BASE = 10000.0
#: layers before the exit, in the paper for a model of 32
EXIT_LAYER = 2


class KangarooAdapter(nn.Module):
    """The graft of a part of `exit_layer` layers.

    Attention is causal, with rotary positions whatever positions the target has. Untrained, it
    gives what the target's final norm makes of the states, so that it drafts as an early exit does.
    """

    kind: ClassVar[str] = "kangaroo"

    def __init__(
        self,
        hidden_size: int,
        *,
        num_heads: int,
        num_kv_heads: int,
        exit_layer: int,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.exit_layer, self.eps = exit_layer, eps
        self.head_dim = hidden_size // num_heads
        self.input_layernorm = nn.RMSNorm(hidden_size, eps=eps)
        self.self_attn = _Projections(hidden_size, num_kv_heads * self.head_dim)
        self.norm = nn.RMSNorm(hidden_size, eps=eps)
        nn.init.zeros_(self.self_attn.o_proj.weight)
        #: what a part asks of its graft; whoever loads it from a folder names that
        self.kv_shapes: tuple[tuple[int, int, int], ...]
        self.kv_shapes = ((num_heads, self.head_dim, self.head_dim),)
        self.path = ""

    @cached_property
    def content_hash(self) -> str:
        """Of the weights, which do not change any more once this is asked for."""
        return weights_hash(self, self.sizes())

    def forward(self, hidden_BND: Tensor, positions_BN: Tensor, attend: Attend) -> Tensor:
        """What the LM head reads, (B, N, D)."""
        own = self.self_attn
        normed = self.input_layernorm(hidden_BND)
        query, key, value = (
            projection(normed).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (own.q_proj, own.k_proj, own.v_proj)
        )
        angle = _angles(positions_BN, self.head_dim)
        query, key = _rotated(query, angle), _rotated(key, angle)
        if self.num_kv_heads < self.num_heads:
            times = self.num_heads // self.num_kv_heads
            key, value = (states.repeat_interleave(times, 1) for states in (key, value))
        mixed = attend(query, key, value)
        return self.norm(hidden_BND + own.o_proj(mixed.flatten(2)))

    def sizes(self) -> dict[str, Any]:
        """All that `build` needs, as JSON."""
        return {
            "exit_layer": self.exit_layer,
            "hidden_size": self.head_dim * self.num_heads,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "eps": self.eps,
        }

    @classmethod
    def build(cls, sizes: dict[str, Any], target: LoadedModel) -> Self:
        """An untrained adapter; sizes not given are the target's own.

        Raises UserError for an exit behind the last layer, or sizes of another target.
        """
        inside = Inside.of(target.model)
        config: Any = target.model.config.get_text_config(decoder=True)
        hidden, heads = inside.hidden_size, int(config.num_attention_heads)
        own = {"hidden_size": hidden, "num_heads": heads, "num_kv_heads": heads, "eps": 1e-6}
        exit_layer = min(EXIT_LAYER, inside.num_layers - 1)
        wanted = {"exit_layer": exit_layer} | own | sizes
        if wanted["hidden_size"] != hidden:
            raise UserError(
                f"This Kangaroo adapter has a hidden size of {wanted['hidden_size']}, and"
                f" {target.name} one of {hidden}: it was trained for another target."
            )
        check_exit(wanted["exit_layer"], target)
        num, kv = wanted["num_heads"], wanted["num_kv_heads"]
        if min(num, kv) < 1 or hidden % (2 * num) or num % kv:
            raise UserError(
                f"An adapter of {num} heads with {kv} heads of keys does not divide {target.name}'s"
                f" hidden size of {hidden}."
            )
        adapter = cls(
            hidden, num_heads=num, num_kv_heads=kv, exit_layer=wanted["exit_layer"],
            eps=wanted["eps"],
        )  # fmt: skip
        with torch.no_grad():
            adapter.norm.weight.copy_(gain_of(inside.norm, hidden))
        return adapter

    @classmethod
    def read_published(cls, folder: Path, target: LoadedModel) -> Self | None:
        """An adapter in the layout of Equationliu/Kangaroo, None where there is none."""
        from engine.heads.files import fill
        from engine.heads.kangaroo_published import read

        found = read(folder)
        if found is None:
            return None
        sizes, state, path = found
        adapter = cls.build(sizes, target)
        fill(adapter, state, path)
        return adapter


class _Projections(nn.Module):
    """The four matrices of an attention, without biases."""

    def __init__(self, hidden_size: int, kv_size: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)


def check_exit(exit_layer: int, target: LoadedModel) -> None:
    """Raises UserError for an exit that leaves no layer on one of its sides."""
    count = Inside.of(target.model).num_layers
    if count < 2:
        raise UserError(f"{target.name} has a single layer, and nothing can leave before it.")
    if not 1 <= exit_layer < count:
        most = f"1 to {count - 1}" if count > 2 else "1"
        raise UserError(
            f"An exit behind {exit_layer} layers does not fit {target.name}, which has {count}"
            f" (layers 0 to {count - 1}): let {most} of them draft."
        )


def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`Attend` over the pass alone, as in training."""
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return mixed.transpose(1, 2)


def _angles(positions_BN: Tensor, dim: int) -> Tensor:
    """Rotary angles (B, 1, N, dim / 2) in float32: half types would blur far positions."""
    at = torch.arange(0, dim, 2, device=positions_BN.device, dtype=torch.float32)
    return positions_BN[:, None, :, None].float() * ROPE_BASE ** (-at / dim)


def _rotated(states: Tensor, angle: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2104.09864) of (B, heads, N, dim), halves paired as in Llama."""
    first, second = states.float().chunk(2, -1)
    cos, sin = angle.cos(), angle.sin()
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return turned.to(states.dtype)
