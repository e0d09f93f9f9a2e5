"""The objective of an EAGLE head: EAGLE-3's training-time test (Li et al., 2503.01840, section 3).

The head learns over several steps what it will do while drafting. At the first, every row reads the
target's features. At step k, the row of position t stands where a drafted token would, k tokens
further on: it reads the feature that the head itself gave at the step before, and looks at the true
rows up to t and at its own k - 1 drafted ones, as the tree's mask will let it. There is no loss on
features; tokens alone count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import UserError
from engine.heads.eagle import EagleHead
from engine.inside import Inside
from engine.models import LoadedModel
from engine.training.heads import HeadBatch, Hits
from engine.training.medusa import count_hits

#: the loss of each further step weighs this much less
DECAY = 0.8
MOST_STEPS = 16


class EagleObjective:
    """Step k at position t learns the target's distribution of the token at t + 2 + k.

    `hard` is the weight of the text's own token in the loss; the paper has 0.
    """

    sees_next = True

    def __init__(
        self,
        target: LoadedModel,
        *,
        steps: int = 4,
        heads: int = 0,
        intermediate: int = 0,
        hard: float = 0.0,
    ) -> None:
        """Sizes of 0 follow the target's. Raises UserError for numbers that make no head."""
        if not 1 <= steps <= MOST_STEPS:
            raise UserError(f"steps is {steps}; EAGLE heads are trained over 1 to {MOST_STEPS}.")
        given: dict[str, Any] = {"heads": heads, "intermediate": intermediate}
        self.module = EagleHead.build({k: v for k, v in given.items() if v}, target)
        self.points = tuple(sorted(set(self.module.shape.points)))
        self._inside = Inside.of(target.model)
        self._steps, self._hard = steps, hard

    def loss(self, batch: HeadBatch) -> Tensor:
        """Mean of the steps' cross-entropies against the target, weighted by `DECAY`."""
        total = batch.logits_BNV.new_zeros((), dtype=torch.float32)
        weights = 0.0
        for step, features_BMD in enumerate(self._roll(batch)):
            logq_BMV = self._logits(features_BMD).float().log_softmax(-1)
            entropy = -(batch.probs_BNV[:, step + 1 :] * logq_BMV).sum(-1).mean()
            if self._hard:
                tokens = batch.ids_BN[:, step + 2 :]
                own = functional.nll_loss(logq_BMV[:, :-1].flatten(0, 1), tokens.flatten())
                entropy = (1 - self._hard) * entropy + self._hard * own
            total = total + DECAY**step * entropy
            weights += DECAY**step
        return total / max(weights, 1e-9)

    def correct(self, batch: HeadBatch) -> dict[int, Hits]:
        """Hits by offset where the tokens in between were drafted rightly."""
        return {
            step + 2: count_hits(self._logits(features_BMD[:, :-1]), batch.ids_BN[:, step + 2 :])
            for step, features_BMD in enumerate(self._roll(batch))
        }

    def _roll(self, batch: HeadBatch) -> Iterator[Tensor]:
        """What the head gives at each step, (B, N - 1 - step, hidden): a row per position."""
        head, ids_BN = self.module, batch.ids_BN
        states = [batch.states[point] for point in head.shape.points]
        features_BMD = head.read(states)
        attend = RolloutAttention()
        for step in range(min(self._steps, ids_BN.size(1) - 2)):
            last = ids_BN.size(1) - 1 - step
            at_M = torch.arange(step, step + last, device=ids_BN.device)
            embeds_BME = self._inside.embed(ids_BN[:, step + 1 :])
            features_BMD = head(features_BMD[:, :last], embeds_BME, at_M[None], attend)
            yield features_BMD

    def _logits(self, features_BMD: Tensor) -> Tensor:
        return self._inside.head(self.module.norm(features_BMD))


class RolloutAttention:
    """Attention of one rollout; a call is a step, with a row or so less than the last.

    Rows of the first step look back at each other. A later row looks at the first step's rows up
    to its own place, and at what the steps since left in that place.
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys, values (B, heads, M, dim) to outputs (B, M, heads, dim)."""
        groups = query.size(1) // key.size(1)
        self._keys.append(key.repeat_interleave(groups, 1))
        self._values.append(value.repeat_interleave(groups, 1))
        num = query.size(2)
        keys, values = ([past[:, :, :num] for past in kept] for kept in (self._keys, self._values))
        if len(keys) == 1:
            out = functional.scaled_dot_product_attention(query, keys[0], values[0], is_causal=True)
            return out.transpose(1, 2)
        query = query * query.size(-1) ** -0.5
        later = torch.ones(num, num, dtype=torch.bool, device=query.device).triu(1)
        true = (query @ keys[0].mT).masked_fill(later, -torch.inf)
        drafted = torch.stack([(query * past).sum(-1) for past in keys[1:]], -1)
        weights = torch.cat([true, drafted], -1).float().softmax(-1).to(query.dtype)
        out = weights[..., :num] @ values[0]
        for step, past in enumerate(values[1:]):
            out = out + weights[..., num + step, None] * past
        return out.transpose(1, 2)
