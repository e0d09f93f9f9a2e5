"""Norms of heads, and what heads need to know of their target's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """Takes states of another dtype, as mixed precision has them, without a warning of torch's."""

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states.to(self.weight.dtype))


def gain_of(norm: nn.Module | None, size: int) -> Tensor:
    """What a norm multiplies each feature by; some keep it less one, some add a bias."""
    if norm is None:
        return torch.ones(size)
    weight = next(norm.parameters())
    signs = torch.ones(size, dtype=weight.dtype, device=weight.device)
    signs[1::2] = -1
    with torch.no_grad():
        return ((norm(signs[None]) - norm(-signs[None])) / 2 * signs)[0].float().cpu()
