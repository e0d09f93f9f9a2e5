"""Training of Kangaroo's adapter (Liu et al., 2404.18911, section 3.1).

The adapter learns to say behind a few layers what the whole target says at the same position: the
loss is the cross-entropy against the target's distribution, -sum p_full log p_draft. Layers, LM
head and everything else of the target stay as they are.

The paper trains at a learning rate of 5e-5; that is for hidden states of 4096 features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.heads.kangaroo import KangarooAdapter, causal
from engine.inside import Inside
from engine.models import LoadedModel
from engine.training.heads import RANKS, HeadBatch, Hits

#: offsets that are looked at: of a chain of drafted tokens that is all right so far
OFFSETS = range(2, 6)


class KangarooObjective:
    """An adapter behind the first `exit_layer` layers of a target.

    It drafts token by token and reads what it drafted, so a guess counts as right where all before
    it are: with the text behind it as its own words it guesses as it does with the text itself.
    """

    sees_next = True

    def __init__(self, target: LoadedModel, *, exit_layer: int = 0) -> None:
        """`exit_layer` layers run before the adapter; 0: two, or as many as there are to spare.

        Raises UserError for an exit that the target does not have.
        """
        sizes = {"exit_layer": exit_layer} if exit_layer else {}
        self.module = KangarooAdapter.build(sizes, target)
        self.points = (self.module.exit_layer,)
        self._head = Inside.of(target.model).head

    def _logits(self, batch: HeadBatch) -> Tensor:
        """The draft's (B, N, V): row n is about token n + 1."""
        ids_BN = batch.ids_BN
        positions_BN = torch.arange(ids_BN.shape[1], device=ids_BN.device)[None]
        hidden_BND = batch.states[self.module.exit_layer]
        return self._head(self.module(hidden_BND, positions_BN, causal))

    def loss(self, batch: HeadBatch) -> Tensor:
        """Soft cross-entropy with the whole target, in nats per position."""
        log_q_BNV = self._logits(batch).float().log_softmax(-1)
        return -(batch.probs_BNV * log_q_BNV).sum(-1).mean()

    def correct(self, batch: HeadBatch) -> dict[int, Hits]:
        """Hits by offset: the guess at +2 is made behind the token at +1, and so on."""
        ids_BN = batch.ids_BN
        # row 0 has no token before its root
        logits_BMV = self._logits(batch)[:, 1:-1]
        best = logits_BMV.topk(min(RANKS, logits_BMV.shape[-1])).indices
        right_BNK = best == ids_BN[:, 2:, None]
        so_far_BN = torch.ones_like(right_BNK[..., 0])
        found = {}
        for behind, offset in enumerate(OFFSETS):
            hits_BNK = right_BNK[:, behind:] & so_far_BN[..., None]
            if hits_BNK.shape[1]:
                found[offset] = Hits(tuple(hits_BNK.sum((0, 1)).tolist()), so_far_BN.numel())
            so_far_BN = hits_BNK[:, :-1, 0]
        return found
