"""Medusa heads (Cai et al. 2024, 2401.10774, section 2.1): several tokens from one hidden state.

Head i (from 0) reads the target's last hidden state at a position t (after the final norm, what the
LM head reads) and guesses the token at t + 2 + i; the token at t + 1 is the target's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import UserError
from engine.models import LoadedModel

#: heads of published checkpoints; none is trained for more
MOST_HEADS = 16


class ResidualBlock(nn.Module):
    """x + SiLU(Wx + b), the identity before training."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return hidden_ND + functional.silu(self.linear(hidden_ND))


class MedusaHeads(nn.Module):
    """Heads over the target's own LM head (tied), or each with one of its own.

    SiLU takes away at most 0.28 of a feature, so a block adds but hardly unsays: before a tied LM
    head what the state says of the next token would stay in every head's guess. A `projection`, a
    (D, D) matrix for each head, the identity at first, goes between: the head's linear layer is
    then LM head times projection. Untrained, every head says what the target's LM head says.
    """

    kind: ClassVar[str] = "medusa"

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        *,
        num_heads: int,
        num_layers: int = 1,
        projection: bool = False,
        target_head: Callable[[Tensor], Tensor] | None,
    ) -> None:
        """`target_head` maps (..., D) to logits (..., V); None: each head has its own matrix."""
        super().__init__()
        self.hidden_size, self.vocab_size = hidden_size, vocab_size
        self.num_heads, self.num_layers = num_heads, num_layers
        # a list display in a loop: `[block] * n` would share one block's weights
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(hidden_size) for _ in range(num_layers)))
            for _ in range(num_heads)
        )
        self.projections = (
            nn.ModuleList(nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(num_heads))
            if projection
            else None
        )
        for one in self.projections or ():
            nn.init.eye_(next(one.parameters()))
        self.heads = (
            nn.ModuleList(nn.Linear(hidden_size, vocab_size, bias=False) for _ in range(num_heads))
            if target_head is None
            else None
        )
        # a function, not a module: the target's parameters must not count as ours
        self._target_head = target_head

    @property
    def tied(self) -> bool:
        """Whether the heads share the target's LM head."""
        return self.heads is None

    def features(self, hidden_ND: Tensor) -> Tensor:
        """(..., D) to (H, ..., D): what each head's output matrix reads."""
        return torch.stack([self._feature(hidden_ND, head) for head in range(self.num_heads)])

    def logits(self, hidden_ND: Tensor, head: int) -> Tensor:
        """Guesses (..., V) of one head at normed hidden states (..., D)."""
        return self._output(self._feature(hidden_ND, head), head)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Normed hidden states (..., D) to logits (H, ..., V)."""
        features_HND = self.features(hidden_ND)
        if self._target_head is not None:
            return self._target_head(features_HND)
        return torch.stack([self._output(one, head) for head, one in enumerate(features_HND)])

    def _feature(self, hidden_ND: Tensor, head: int) -> Tensor:
        feature_ND = self.blocks[head](hidden_ND)
        return feature_ND if self.projections is None else self.projections[head](feature_ND)

    def _output(self, feature_ND: Tensor, head: int) -> Tensor:
        if self._target_head is not None:
            return self._target_head(feature_ND)
        assert self.heads is not None
        return self.heads[head](feature_ND)

    def sizes(self) -> dict[str, Any]:
        """All that `build` needs, as JSON."""
        return {
            "num_heads": self.num_heads,
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "vocab_size": self.vocab_size,
            "tied": self.tied,
            "projection": self.projections is not None,
        }

    @classmethod
    def build(cls, sizes: dict[str, Any], target: LoadedModel) -> Self:
        """Untrained heads; own output matrices start as the target's.

        Raises UserError for sizes that make no heads, or heads of another target.
        """
        from engine.inside import Inside

        inside = Inside.of(target.model)
        wanted = {"num_layers": 1, "tied": True, "projection": False} | sizes
        hidden, vocab = inside.hidden_size, target.vocab_size
        for name, have in (("hidden_size", hidden), ("vocab_size", vocab)):
            if wanted.get(name, have) != have:
                raise UserError(
                    f"These Medusa heads have a {name} of {wanted[name]}, and {target.name} one of "
                    f"{have}: they were trained for another target."
                )
        for name, most in (("num_heads", MOST_HEADS), ("num_layers", 8)):
            if not 1 <= wanted[name] <= most:
                raise UserError(f"{name} is {wanted[name]}; Medusa takes 1 to {most}.")
        heads = cls(
            hidden,
            vocab,
            num_heads=wanted["num_heads"],
            num_layers=wanted["num_layers"],
            projection=wanted["projection"],
            target_head=inside.head if wanted["tied"] else None,
        )
        if heads.heads is not None:
            state = inside.lm_head.state_dict()
            for head in heads.heads:
                head.load_state_dict({"weight": state["weight"]})
        return heads

    @classmethod
    def read_published(cls, folder: Path, target: LoadedModel) -> Self | None:
        """Heads in the layout of FasterDecoding/Medusa, None where there are none."""
        from engine.heads.files import fill
        from engine.heads.medusa_published import read

        found = read(folder)
        if found is None:
            return None
        sizes, state = found
        heads = cls.build(sizes, target)
        fill(heads, state, folder)
        return heads
