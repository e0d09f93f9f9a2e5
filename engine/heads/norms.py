"""Norms of heads, what heads need to know of their target's, and what names their weights."""

from __future__ import annotations

import hashlib
from typing import Any

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


def weights_hash(module: nn.Module, sizes: dict[str, Any]) -> str:
    """Names a head by its sizes and weights, in 16 hexadecimal digits."""
    digest = hashlib.sha256(repr(sizes).encode())
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
