"""What moves a head's weights."""

from __future__ import annotations

import torch
from torch import nn

from engine.training.heads import HeadRecipe
from engine.training.optim import Muon


def optimisers(
    parameters: list[nn.Parameter], recipe: HeadRecipe, *, vocab_size: int
) -> dict[str, torch.optim.Optimizer]:
    """AdamW for all, or Muon for matrices that map features to features and AdamW for the rest.

    Gains and biases are not decayed; each group keeps its full rate as `base_lr`.
    """
    muon = recipe.optimiser == "muon"
    inner = [p for p in parameters if muon and p.ndim == 2 and vocab_size not in p.shape]
    chosen = set(map(id, inner))
    rest = [p for p in parameters if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    found: dict[str, torch.optim.Optimizer] = {}
    if rest:
        lr = recipe.lr * (0.1 if muon else 1.0)
        full = [group | {"base_lr": lr} for group in groups if group["params"]]
        found["adamw"] = torch.optim.AdamW(full, lr=lr, betas=recipe.betas, fused=True)
    if inner:
        found["muon"] = Muon(inner, lr=recipe.lr, weight_decay=recipe.weight_decay)
        for group in found["muon"].param_groups:
            group["base_lr"] = recipe.lr
    return found
