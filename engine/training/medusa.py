"""The objective of Medusa heads (Cai et al. 2024, 2401.10774, section 2.2.1, "Medusa-1")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.heads.medusa import MedusaHeads
from engine.models import LoadedModel
from engine.parts import NORMED
from engine.training.heads import RANKS, HeadBatch, Hits

#: the loss of head i weighs this to the power i + 1 (the paper's lambda)
DECAY = 0.8


class MedusaObjective:
    """Head i at position t learns the token at t + 2 + i, the target frozen.

    The paper's loss is the cross-entropy against the text (`hard` = 1). The target's distribution
    there, which it computes anyway, says more than the one token that was drawn: the rest of the
    weight goes to it.
    """

    sees_next = False

    def __init__(
        self,
        target: LoadedModel,
        *,
        num_heads: int = 4,
        num_layers: int = 1,
        tied: bool = True,
        projection: bool = True,
        hard: float = 0.5,
    ) -> None:
        """A `projection` is for tied heads alone. Raises UserError for numbers that make none."""
        sizes: dict[str, Any] = {"num_heads": num_heads, "num_layers": num_layers, "tied": tied}
        sizes["projection"] = projection and tied
        self.module = MedusaHeads.build(sizes, target)
        self.points = (NORMED,)
        self._hard = hard

    def loss(self, batch: HeadBatch) -> Tensor:
        """Mean of the heads' cross-entropies, weighted by `DECAY`."""
        total = batch.states[NORMED].new_zeros((), dtype=torch.float32)
        weights = 0.0
        for head in range(self.module.num_heads):
            offset = head + 2
            logits_BMV = self._guesses(batch, head)
            if logits_BMV.size(1) == 0:  # rows shorter than the offset say nothing of it
                continue
            logq_BMV = logits_BMV.float().log_softmax(-1)
            entropy = (
                functional.nll_loss(logq_BMV.flatten(0, 1), batch.ids_BN[:, offset:].flatten())
                * self._hard
            )
            if self._hard < 1:
                probs_BMV = batch.probs_BNV[:, offset - 1 : -1]
                soft = -(probs_BMV * logq_BMV).sum(-1).mean()
                entropy = entropy + (1 - self._hard) * soft
            total = total + DECAY ** (head + 1) * entropy
            weights += DECAY ** (head + 1)
        return total / max(weights, 1e-9)

    def correct(self, batch: HeadBatch) -> dict[int, Hits]:
        """Hits of each head."""
        found = {}
        for head in range(self.module.num_heads):
            offset = head + 2
            logits_BMV = self._guesses(batch, head)
            found[offset] = count_hits(logits_BMV, batch.ids_BN[:, offset:])
        return found

    def _guesses(self, batch: HeadBatch, head: int) -> Tensor:
        """Logits (B, N - offset, V) of one head, where the text goes on long enough."""
        hidden_BMD = batch.states[NORMED][:, : -(head + 2)]
        return self.module.logits(hidden_BMD, head)


def count_hits(logits_BMV: Tensor, tokens_BM: Tensor) -> Hits:
    """At which ranks the tokens stand among the likeliest guesses."""
    best_BMK = logits_BMV.topk(min(RANKS, logits_BMV.size(-1)), dim=-1).indices
    hit_BMK = best_BMK == tokens_BM.unsqueeze(-1)
    return Hits(tuple(hit_BMK.flatten(0, 1).sum(0).tolist()), tokens_BM.numel())
