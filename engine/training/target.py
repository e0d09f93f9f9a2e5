"""Train the target: shallow and short first, then deep and long, annealed at the end.

Economy for a CPU: half the layers for the first part of the budget, then each is duplicated
(`stack_layers`); short windows first, the full length at the end; Muon; and a learning rate that
falls to zero exactly when the budget ends. The last part sees the corpus's best share only.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from engine.training.batches import BatchSampler
from engine.training.checkpoint import load_checkpoint, save_checkpoint
from engine.training.models import TARGET_SHAPE, ModelShape, build_model, place, stack_layers
from engine.training.optim import Optimisers
from engine.training.progress import (
    Budget,
    OnProgress,
    PairProgress,
    ShouldStop,
    Stopwatch,
    TrainingStopped,
    trapezoid,
)

logger = logging.getLogger(__name__)

TokenArray = np.ndarray[Any, np.dtype[np.int32]]


class Stage(NamedTuple):
    """Windows from some point of the budget on."""

    start: float
    """Fraction of the budget at which the stage begins."""
    length: int
    """Tokens per window."""
    rows: int
    """Windows per step."""


@dataclass(frozen=True, kw_only=True)
class TargetRecipe:
    """How the target is trained."""

    budget: Budget
    shape: ModelShape = TARGET_SHAPE
    first_layers: int = 4
    """Layers before stacking."""
    stack_at: float = 0.6
    """Fraction of the budget at which the layers are stacked."""
    stages: tuple[Stage, ...] = (Stage(0, 256, 16), Stage(0.5, 512, 9), Stage(0.8, 1024, 5))
    warmup: float = 0.02
    decay: float = 0.3
    """Share of the budget over which the learning rate falls to zero."""
    matrix_lr: float = 0.02
    adam_lr: float = 0.004
    weight_decay: float = 0.05
    clip: float = 1.0
    micro_tokens: int = 2048
    """Tokens per forward pass; a step adds up several."""
    cuda_factor: int = 4
    """On a GPU: as many times more windows per step."""
    context: int = 2048
    seed: int = 0
    device: str = "cpu"
    compile_layers: bool = False
    checkpoint_seconds: float = 120.0


class TargetData(NamedTuple):
    """Token streams for the target."""

    main: TokenArray
    """For most of the budget."""
    anneal: TokenArray
    """While the learning rate falls."""
    vocab_size: int
    end_of_text: int


def train_target(
    recipe: TargetRecipe,
    data: TargetData,
    *,
    checkpoint: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> LlamaForCausalLM:
    """Train a target and return it; takes up `checkpoint` where one lies there.

    Raises:
        TrainingStopped: `should_stop` said so; the checkpoint is up to date.
    """
    run = _TargetRun(recipe, data)
    state = load_checkpoint(checkpoint, device=recipe.device)
    if state is not None:
        run.load_state_dict(state)
        logger.info("resumed %s at %.1f%%", checkpoint, 100 * run.fraction)
    saved = time.monotonic()
    while run.fraction < 1:
        if should_stop():
            save_checkpoint(checkpoint, run.state_dict())
            raise TrainingStopped(str(checkpoint))
        run.step()
        on_progress(run.progress())
        if time.monotonic() - saved > recipe.checkpoint_seconds:
            save_checkpoint(checkpoint, run.state_dict())
            saved = time.monotonic()
    save_checkpoint(checkpoint, run.state_dict())
    return run.model


class _TargetRun:
    """A training run between two steps; everything in it goes into the checkpoint."""

    def __init__(self, recipe: TargetRecipe, data: TargetData) -> None:
        self.recipe, self.data = recipe, data
        shallow = ModelShape(
            layers=recipe.first_layers,
            hidden=recipe.shape.hidden,
            heads=recipe.shape.heads,
            kv_heads=recipe.shape.kv_heads,
            intermediate=recipe.shape.intermediate,
        )
        model = build_model(
            shallow,
            vocab_size=data.vocab_size,
            context=recipe.context,
            end_of_text=data.end_of_text,
            seed=recipe.seed,
        )
        self._adopt(place(model, recipe.device))
        self.main = BatchSampler(data.main, seed=recipe.seed)
        self.anneal = BatchSampler(data.anneal, seed=recipe.seed + 1)
        self.tokens = self.steps = 0
        self.loss: float | None = None
        self.rate: float | None = None
        self.watch = Stopwatch()

    @property
    def fraction(self) -> float:
        return self.recipe.budget.fraction(seconds=self.watch.seconds, tokens=self.tokens)

    def step(self) -> None:
        """One optimiser step over the current stage's windows."""
        recipe, fraction = self.recipe, self.fraction
        if fraction >= recipe.stack_at:
            self._deepen()
        stage = [stage for stage in recipe.stages if stage.start <= fraction][-1]
        sampler = self.main if fraction < 1 - recipe.decay else self.anneal
        factor = recipe.cuda_factor if recipe.device.startswith("cuda") else 1
        batch = sampler.draw(rows=stage.rows * factor, length=stage.length).to(recipe.device)
        begun = time.monotonic()
        loss = self._backward(batch)
        self.optimisers.step(
            scale=trapezoid(fraction, warmup=recipe.warmup, decay=recipe.decay), clip=recipe.clip
        )
        size = batch.size(0) * stage.length
        rate = size / (time.monotonic() - begun)
        self.tokens, self.steps = self.tokens + size, self.steps + 1
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.rate = rate if self.rate is None else 0.9 * self.rate + 0.1 * rate

    def progress(self) -> PairProgress:
        layers = self.model.config.num_hidden_layers
        return PairProgress(
            phase="target",
            fraction=self.fraction,
            tokens=self.tokens,
            loss=self.loss,
            tokens_per_second=self.rate,
            message=f"{layers} layers, windows of {self.main.state_dict()['length']}",
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "layers": self.model.config.num_hidden_layers,
            "model": self.model.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "main": self.main.state_dict(),
            "anneal": self.anneal.state_dict(),
            "tokens": self.tokens,
            "steps": self.steps,
            "loss": self.loss,
            "seconds": self.watch.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["layers"] != self.model.config.num_hidden_layers:
            self._deepen()
        self.model.load_state_dict(state["model"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.main.load_state_dict(state["main"])
        self.anneal.load_state_dict(state["anneal"])
        self.tokens, self.steps, self.loss = state["tokens"], state["steps"], state["loss"]
        self.watch = Stopwatch(state["seconds"])

    def _backward(self, batch: Tensor) -> float:
        rows = max(1, self.recipe.micro_tokens // (batch.size(1) - 1))
        if batch.is_cuda:
            rows = batch.size(0)
        total = 0.0
        for part in batch.split(rows):
            with precision(self.recipe.device):
                logits = self.model(part[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten())
            loss = loss * (part.size(0) / batch.size(0))
            loss.backward()
            total += float(loss.detach())
        return total

    def _deepen(self) -> None:
        if self.model.config.num_hidden_layers != self.recipe.shape.layers:
            self._adopt(stack_layers(self.model, layers=self.recipe.shape.layers))

    def _adopt(self, model: LlamaForCausalLM) -> None:
        self.model = model.train()
        if self.recipe.compile_layers:
            for layer in model.model.layers:
                layer.compile()
        self.optimisers = Optimisers(
            model,
            matrix_lr=self.recipe.matrix_lr,
            adam_lr=self.recipe.adam_lr,
            weight_decay=self.recipe.weight_decay,
        )


def precision(device: str) -> AbstractContextManager[Any]:
    """Return bfloat16 autocast on a GPU, plain float32 elsewhere."""
    if device.startswith("cuda"):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
