"""Optimisers of the recipe: Muon for matrices inside the layers, AdamW for the rest.

`torch.optim.Muon` orthogonalises in bfloat16, which CPUs without bfloat16 units emulate many
times slower than float32; hence the Muon here, which takes the device's own fast type and
batches matrices of one shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return the matrices (..., R, C) with singular values pulled towards one.

    Five Newton-Schulz steps with the coefficients of Jordan et al. 2024, "Muon".
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), for 2-D parameters.

    A step moves a matrix of R rows and C columns by `lr * sqrt(max(1, R / C))` in every
    singular direction; weight decay is decoupled.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; closures are not supported."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                self._step_alike(parameters, shape, group)

    def _step_alike(
        self, parameters: list[nn.Parameter], shape: torch.Size, group: dict[str, Any]
    ) -> None:
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            grad = parameter.grad
            assert grad is not None
            buffer = state["momentum"].lerp_(grad, 1 - group["momentum"])
            updates.append(grad.lerp(buffer, group["momentum"]))
        scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
        directions = orthogonalise(torch.stack(updates))
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-scale)


class Optimisers:
    """Muon and AdamW behind one `step`, with one schedule for both."""

    def __init__(
        self, model: nn.Module, *, matrix_lr: float, adam_lr: float, weight_decay: float
    ) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            inside = parameter.ndim == 2 and ".layers." in name
            (matrices if inside else others).append(parameter)
        self.muon = Muon(matrices, lr=matrix_lr, weight_decay=weight_decay)
        self.adam = torch.optim.AdamW(
            others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self._base = {self.muon: matrix_lr, self.adam: adam_lr}
        self._parameters = [*matrices, *others]

    def step(self, *, scale: float, clip: float) -> float:
        """Clip gradients to norm `clip`, step at `scale` times the base rates, drop gradients.

        Returns the gradient's norm before clipping.
        """
        norm = nn.utils.clip_grad_norm_(self._parameters, clip)
        for optimiser, lr in self._base.items():
            for group in optimiser.param_groups:
                group["lr"] = lr * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimisers."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` returned."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
