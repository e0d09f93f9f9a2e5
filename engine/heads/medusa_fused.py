"""Medusa heads as drafting runs them: all at once, in as few calls as there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.heads.medusa import MedusaHeads


class FusedMedusa:
    """The first `num_heads` heads. Copies their weights side by side, but for the target's own."""

    def __init__(
        self, heads: MedusaHeads, num_heads: int, target_head: Callable[[Tensor], Tensor]
    ) -> None:
        """`target_head` maps (..., D) to logits (..., V), where the heads are tied to it."""
        self._num_heads, self._hidden_size = num_heads, heads.hidden_size
        blocks: list[Any] = list(heads.blocks)[:num_heads]
        first, *more = zip(*([one.linear for one in block] for block in blocks), strict=True)
        #: all heads read the same state, so their first layers are one matrix, (H x D, D)
        self._first = torch.cat([linear.weight for linear in first])
        self._first_bias = torch.cat([linear.bias for linear in first])
        self._more = [
            (
                torch.stack([linear.weight.T for linear in layer]),
                torch.stack([linear.bias for linear in layer])[:, None],
            )
            for layer in more
        ]
        self._projection_HDD: Tensor | None = None
        if heads.projections is not None:
            last: list[Any] = list(heads.projections)[:num_heads]
            self._projection_HDD = torch.stack([one.weight.T for one in last])
        self._target_head = target_head
        self._own_HDV: Tensor | None = None
        if heads.heads is not None:
            own: list[Any] = list(heads.heads)[:num_heads]
            self._own_HDV = torch.stack([head.weight.T for head in own])

    def __call__(self, hidden_BD: Tensor) -> Tensor:
        """States at the point NORMED to logits (H, B, V), those of the heads one by one."""
        first = functional.linear(hidden_BD, self._first, self._first_bias)
        states_HBD = hidden_BD + functional.silu(
            first.view(len(hidden_BD), self._num_heads, self._hidden_size).transpose(0, 1)
        )
        for weight_HDD, bias_H1D in self._more:
            inner = torch.baddbmm(bias_H1D, states_HBD, weight_HDD)
            states_HBD = states_HBD + functional.silu(inner)
        if self._projection_HDD is not None:
            states_HBD = torch.bmm(states_HBD, self._projection_HDD)
        if self._own_HDV is not None:
            return torch.bmm(states_HBD, self._own_HDV)
        return self._target_head(states_HBD)
