"""Train the target: shallow and short first, then deep and long, annealed at the end.

Economy for a CPU: half the layers for the first part of the budget, then each is duplicated
(`stack_layers`); short windows first, the full length at the end; Muon; and a learning rate that
falls to zero exactly when the budget ends. The last part sees the corpus's best share only.

A target may go on from one that is trained (`start`), and may learn to leave early (`exits`).
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from engine.training.batches import BatchSampler, TokenArray
from engine.training.exits import NO_EXITS, ExitRecipe, exit_losses
from engine.training.loop import Meter, run_to_end
from engine.training.models import (
    TARGET_SHAPE,
    ModelShape,
    build_model,
    place,
    precision,
    stack_layers,
)
from engine.training.optim import Optimisers
from engine.training.progress import Budget, OnProgress, PairProgress, ShouldStop, trapezoid


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
    first_layers: int | None = None
    """Layers before stacking; half of them, where they can be halved, when not given."""
    stack_at: float = 0.6
    """Fraction of the budget at which the layers are stacked."""
    stages: tuple[Stage, ...] = (Stage(0, 256, 16), Stage(0.5, 512, 9), Stage(0.8, 1024, 5))
    warmup: float = 0.02
    decay: float = 0.3
    """Share of the budget over which the learning rate falls to zero."""
    matrix_lr: float = 0.02
    adam_lr: float = 0.004
    peak: float = 1.0
    """Share of these rates that is reached; less of them does for a target that is trained."""
    weight_decay: float = 0.05
    clip: float = 1.0
    micro_tokens: int = 2048
    """Tokens per forward pass; a step adds up several."""
    cuda_factor: int = 4
    """On a GPU: as many times more windows per step."""
    context: int = 2048
    seed: int = 0
    device: str = "cpu"
    phase: str = "target"
    """What progress calls it."""
    exits: ExitRecipe = NO_EXITS
    """Layer dropout and early-exit loss."""
    compile_layers: bool = False
    checkpoint_seconds: float = 120.0

    @property
    def layers_at_first(self) -> int:
        """Layers before stacking."""
        layers = self.shape.layers
        return self.first_layers or (layers if layers % 2 else layers // 2)


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
    start: LlamaForCausalLM | None = None,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> LlamaForCausalLM:
    """Train a target and return it; takes up `checkpoint` where one lies there.

    `start` is a model of the recipe's shape to go on from, which stays as it is; without one the
    recipe begins with untrained weights.

    Raises:
        TrainingStopped: `should_stop` said so; the checkpoint is up to date.
    """
    run = _TargetRun(recipe, data, start)
    run_to_end(run, checkpoint=checkpoint, on_progress=on_progress, should_stop=should_stop)
    return run.model


class _TargetRun:
    """A training run between two steps; everything in it goes into the checkpoint."""

    def __init__(
        self, recipe: TargetRecipe, data: TargetData, start: LlamaForCausalLM | None
    ) -> None:
        self.recipe, self.data, self.goes_on = recipe, data, start is not None
        if start is not None:
            model = copy.deepcopy(start).requires_grad_(True)  # loaded models take none
        else:
            model = build_model(
                dataclasses.replace(recipe.shape, layers=recipe.layers_at_first),
                vocab_size=data.vocab_size,
                context=recipe.context,
                end_of_text=data.end_of_text,
                seed=recipe.seed,
            )
        self._adopt(place(model, recipe.device))
        self.main = BatchSampler(data.main, seed=recipe.seed)
        self.anneal = BatchSampler(data.anneal, seed=recipe.seed + 1)
        self.meter = Meter(recipe.budget)

    def step(self) -> None:
        """One optimiser step over the current stage's windows."""
        recipe, fraction = self.recipe, self.meter.fraction
        if fraction >= recipe.stack_at:
            self._deepen()
        stage = [stage for stage in recipe.stages if stage.start <= fraction][-1]
        sampler = self.main if fraction < 1 - recipe.decay else self.anneal
        factor = recipe.cuda_factor if recipe.device.startswith("cuda") else 1
        batch = sampler.draw(rows=stage.rows * factor, length=stage.length).to(recipe.device)
        begun = time.monotonic()
        loss = self._backward(batch)
        schedule = trapezoid(fraction, warmup=recipe.warmup, decay=recipe.decay)
        self.optimisers.step(scale=recipe.peak * schedule, clip=recipe.clip)
        self.meter.note(
            loss=loss, tokens=batch.size(0) * stage.length, seconds=time.monotonic() - begun
        )

    def progress(self) -> PairProgress:
        layers = self.model.config.num_hidden_layers
        length = self.main.state_dict()["length"]
        return self.meter.progress(self.recipe.phase, f"{layers} layers, windows of {length}")

    def state_dict(self) -> dict[str, Any]:
        return {
            "layers": self.model.config.num_hidden_layers,
            "model": self.model.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "main": self.main.state_dict(),
            "anneal": self.anneal.state_dict(),
            **self.meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["layers"] != self.model.config.num_hidden_layers:
            self._deepen()
        self.model.load_state_dict(state["model"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.main.load_state_dict(state["main"])
        self.anneal.load_state_dict(state["anneal"])
        self.meter.load_state_dict(state)

    def _backward(self, batch: Tensor) -> float:
        rows = max(1, self.recipe.micro_tokens // (batch.size(1) - 1))
        if batch.is_cuda:
            rows = batch.size(0)
        total = 0.0
        # Seeded by the step, so that a run which is taken up leaves out the same layers.
        draws = np.random.default_rng([self.recipe.seed, self.meter.steps])
        for part in batch.split(rows):
            loss, shown = self._losses(part, draws)
            share = part.size(0) / batch.size(0)
            (loss * share).backward()
            total += float(shown.detach() * share)
        return total

    def _losses(self, part: Tensor, draws: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The loss to go down, and the full model's own."""
        if self.recipe.exits:
            # Training anew begins without dropout, which grows exponentially over the budget.
            curriculum = 1.0 if self.goes_on else 2**self.meter.fraction - 1
            return exit_losses(
                self.model,
                part,
                self.recipe.exits,
                step=self.meter.steps,
                draws=draws,
                curriculum=curriculum,
            )
        with precision(self.recipe.device):
            logits = self.model(part[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten())
        return loss, loss

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
