"""Train the draft to say what the target says.

The loss at each position is a mixture of two cross-entropies: against the target's distribution
(soft: all it knows) and against its single most probable token (hard: what greedy decoding asks
for). Distillation starts from the target's own embedding, projected to the draft's width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from engine.training.loop import Meter, run_to_end
from engine.training.models import (
    DRAFT_SHAPE,
    ModelShape,
    build_model,
    end_of_text,
    place,
    precision,
)
from engine.training.optim import Optimisers
from engine.training.progress import Budget, OnProgress, PairProgress, ShouldStop, trapezoid
from engine.training.teacher import ScoredRows


@dataclass(frozen=True, kw_only=True)
class DistillRecipe:
    """How the draft is trained."""

    budget: Budget
    shape: ModelShape = DRAFT_SHAPE
    hard: float = 0.5
    """Weight of the target's argmax against its distribution, 0 to 1."""
    tokens_per_step: int = 4096
    cuda_factor: int = 4
    warmup: float = 0.02
    decay: float = 0.6
    matrix_lr: float = 0.02
    adam_lr: float = 0.003
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"
    checkpoint_seconds: float = 60.0


def build_draft(
    target: LlamaForCausalLM, shape: ModelShape, *, seed: int, from_target: bool = True
) -> LlamaForCausalLM:
    """Return an untrained draft of the target's vocabulary.

    With `from_target`, its embedding is the target's along that one's principal directions: the
    best approximation of the given width.
    """
    config = target.config
    draft = build_model(
        shape,
        vocab_size=config.vocab_size,
        context=config.max_position_embeddings,
        end_of_text=end_of_text(target),
        seed=seed,
    )
    if from_target and shape.hidden <= config.hidden_size:
        weight = target.model.embed_tokens.weight.detach().float().cpu()
        gain = target.model.norm.weight.detach().float().cpu()
        directions = torch.linalg.svd(weight - weight.mean(0), full_matrices=False).Vh
        projected = weight @ directions[: shape.hidden].T
        with torch.no_grad():
            draft.model.embed_tokens.weight.copy_(projected)
            draft.lm_head.weight.copy_(projected)
            draft.model.norm.weight.fill_(float(gain.mean()))
    return draft


def agreement_loss(
    logits_RTV: Tensor, top_RTK: Tensor, logprob_RTK: Tensor, *, hard: float
) -> Tensor:
    """Return the mixture of soft and hard cross-entropy, a scalar in nats per token.

    Probability mass beyond the target's K best tokens is left out of the soft part.
    """
    logq_RTK = logits_RTV.float().log_softmax(-1).gather(-1, top_RTK)
    weight_RTK = logprob_RTK.exp() * (1 - hard)
    weight_RTK[..., 0] += hard
    return -(weight_RTK * logq_RTK).sum(-1).mean()


def distill(
    target: LlamaForCausalLM,
    shards: Sequence[ScoredRows],
    recipe: DistillRecipe,
    *,
    checkpoint: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> LlamaForCausalLM:
    """Train a draft on rows the target has scored and return it; takes up `checkpoint`.

    Raises:
        TrainingStopped: `should_stop` said so; the checkpoint is up to date.
    """
    run = _DistillRun(target, shards, recipe)
    run_to_end(run, checkpoint=checkpoint, on_progress=on_progress, should_stop=should_stop)
    return run.draft


class _DistillRun:
    """Distillation between two steps; everything in it goes into the checkpoint."""

    def __init__(
        self, target: LlamaForCausalLM, shards: Sequence[ScoredRows], recipe: DistillRecipe
    ) -> None:
        self.recipe, self.shards = recipe, shards
        draft = build_draft(target, recipe.shape, seed=recipe.seed)
        self.draft = place(draft, recipe.device).train()
        self.optimisers = Optimisers(
            self.draft,
            matrix_lr=recipe.matrix_lr,
            adam_lr=recipe.adam_lr,
            weight_decay=recipe.weight_decay,
        )
        self.meter = Meter(recipe.budget)
        self._order: list[tuple[int, NumpyIndex]] = []
        self._epoch = -1

    def step(self) -> None:
        recipe, fraction, begun = self.recipe, self.meter.fraction, time.monotonic()
        rows, chosen = self._batch(self.meter.steps)
        tokens = torch.from_numpy(rows.tokens_RT[chosen]).long().to(recipe.device)
        top = torch.from_numpy(rows.top_RTK[chosen]).long().to(recipe.device)
        logprob = torch.from_numpy(rows.logprob_RTK[chosen]).float().to(recipe.device)
        with precision(recipe.device):
            logits = self.draft(tokens, use_cache=False).logits
        loss = agreement_loss(logits, top, logprob, hard=recipe.hard)
        loss.backward()
        self.optimisers.step(
            scale=trapezoid(fraction, warmup=recipe.warmup, decay=recipe.decay), clip=recipe.clip
        )
        self.meter.note(
            loss=float(loss.detach()), tokens=tokens.numel(), seconds=time.monotonic() - begun
        )

    def progress(self) -> PairProgress:
        message = f"epoch {self._epoch + 1} over {len(self.shards)} shards"
        return self.meter.progress("distil", message)

    def state_dict(self) -> dict[str, Any]:
        return {
            "draft": self.draft.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            **self.meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draft.load_state_dict(state["draft"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.meter.load_state_dict(state)

    def _batch(self, step: int) -> tuple[ScoredRows, NumpyIndex]:
        """Return the shard and the rows of it for a step: a function of seed and step alone."""
        size = self._plan_size()
        epoch, place = divmod(step, size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._plan(epoch)
        shard, chosen = self._order[place]
        return self.shards[shard], chosen

    def _rows_per_step(self, rows: ScoredRows) -> int:
        factor = self.recipe.cuda_factor if self.recipe.device.startswith("cuda") else 1
        return max(1, factor * self.recipe.tokens_per_step // rows.tokens_RT.shape[1])

    def _plan_size(self) -> int:
        return sum(-(-rows.tokens_RT.shape[0] // self._rows_per_step(rows)) for rows in self.shards)

    def _plan(self, epoch: int) -> list[tuple[int, NumpyIndex]]:
        generator = np.random.default_rng([self.recipe.seed, epoch])
        plan: list[tuple[int, NumpyIndex]] = []
        for index, rows in enumerate(self.shards):
            order = generator.permutation(rows.tokens_RT.shape[0])
            size = self._rows_per_step(rows)
            plan.extend((index, order[i : i + size]) for i in range(0, len(order), size))
        return [plan[i] for i in generator.permutation(len(plan))]


NumpyIndex = np.ndarray[Any, np.dtype[np.int64]]
