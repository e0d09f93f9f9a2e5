"""One training of a head: step, look at held-out text, keep the best, go on after a kill."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.models import LoadedModel
from engine.training.heads import (
    HeadData,
    HeadProgress,
    HeadRecipe,
    HeldOut,
    Hits,
    Objective,
    Trained,
)
from engine.training.heads_data import Rows, check, look, mixed_precision, windows
from engine.training.heads_optim import optimisers
from engine.training.loop import Meter, run_to_end
from engine.training.progress import (
    OnProgress,
    ShouldStop,
    TrainingFailed,
    trapezoid,
)

FINAL_FACTOR = 4
"""As many times more held-out text is looked at in the end."""


def train_head(
    recipe: HeadRecipe,
    target: LoadedModel,
    data: HeadData,
    objective: Objective,
    *,
    checkpoint: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> Trained:
    """Train the objective's module; takes up `checkpoint` where one lies there.

    Raises:
        TrainingStopped: `should_stop` said so; the checkpoint is up to date.
        TrainingFailed: the loss is no number, or the disk is full; the last good checkpoint is
            kept.
        ValueError: rows longer than the target's context, or too little text for one.
    """
    run = HeadRun(recipe, target, data, objective, checkpoint=checkpoint)
    run_to_end(run, checkpoint=checkpoint, on_progress=on_progress, should_stop=should_stop)
    return run.finish()


class HeadRun:
    """A training between two steps; everything in it goes into the checkpoint."""

    def __init__(
        self,
        recipe: HeadRecipe,
        target: LoadedModel,
        data: HeadData,
        objective: Objective,
        *,
        checkpoint: Path,
    ) -> None:
        check(recipe, target, data)
        self.recipe, self.target, self.objective = recipe, target, objective
        self.data, self.checkpoint = data, checkpoint
        self.module = objective.module.to(device=recipe.device, dtype=torch.float32).train()
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimisers = optimisers(self.parameters, recipe, vocab_size=target.vocab_size)
        self.rows = Rows(data, recipe)
        self.meter = Meter(recipe.budget)
        self.first: HeldOut | None = None
        """Before the first step."""
        self.latest: HeldOut | None = None
        self._fresh = False  # whether `latest` has yet to be told
        self._looks = self._since_best = 0
        self._best: tuple[float, dict[str, Tensor]] = (math.inf, {})

    def step(self) -> None:
        """One optimiser step; then a look at held-out text where it is due."""
        recipe, begun = self.recipe, time.monotonic()
        if self.first is None:
            self.first = self.look_at_held_out(recipe.evaluate_tokens)
        scale = trapezoid(self.meter.fraction, warmup=recipe.warmup, decay=recipe.decay)
        loss, tokens = 0.0, 0
        with torch.random.fork_rng(devices=_cuda(recipe.device)):
            torch.manual_seed(recipe.seed * 1_000_003 + self.meter.steps)
            for _ in range(recipe.accumulate):
                ids = self.rows.draw().to(recipe.device)
                tokens += ids.numel()
                loss += self._backward(ids)
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self._refuse_nonsense(loss, float(norm))
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.meter.note(loss=loss, tokens=tokens, seconds=time.monotonic() - begun)
        if self.meter.fraction >= (self._looks + 1) * recipe.evaluate_every:
            self._look()

    def progress(self) -> HeadProgress:
        """Return a sign of life."""
        told = self.latest if self._fresh else None
        self._fresh = False
        base = self.meter.progress("head", _words(self.latest or self.first))
        fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
        return HeadProgress(**fields, step=self.meter.steps, held_out=told)

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the next step."""
        return {
            "module": self.module.state_dict(),
            "optimisers": {name: one.state_dict() for name, one in self.optimisers.items()},
            "rows": self.rows.state_dict(),
            "meter": self.meter.state_dict(),
            "looks": [self._looks, self._since_best],
            "held_out": [_packed(one) for one in (self.first, self.latest) if one is not None],
            "best_loss": self._best[0],
            "best": self._best[1],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self.module.load_state_dict(state["module"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.rows.load_state_dict(state["rows"])
        self.meter.load_state_dict(state["meter"])
        self._looks, self._since_best = state["looks"]
        self.first, self.latest = [*map(_unpacked, state["held_out"]), None, None][:2]
        self._best = (state["best_loss"], state["best"])
        self._fresh = False

    def finish(self) -> Trained:
        """Go back to the best weights and look at more held-out text."""
        if self._best[1]:
            self.module.load_state_dict(self._best[1])
        held_out = self.look_at_held_out(FINAL_FACTOR * self.recipe.evaluate_tokens)
        self.module.eval()
        counted = self.meter.state_dict()
        return Trained(
            held_out=held_out,
            first=self.first or held_out,
            step=counted["steps"],
            tokens=counted["tokens"],
            seconds=counted["seconds"],
            loss=counted["loss"],
            ended_early=self.meter.ended,
        )

    @torch.no_grad()
    def look_at_held_out(self, most: int) -> HeldOut:
        """Loss and accuracies on held-out text, the same rows each time."""
        recipe, data = self.recipe, self.data
        self.module.eval()
        loss, text = self._tally(windows(data.held_out, length=recipe.length, most=most))
        written: dict[int, Hits] = {}
        if data.written_held_out_RT is not None:
            count = max(1, most // recipe.length)
            rows = torch.from_numpy(data.written_held_out_RT[:count].astype("int64"))
            written_loss, written = self._tally(rows)
            loss += (written_loss - loss) * recipe.written_share
        self.module.train()
        return HeldOut(loss, text, written)

    def _tally(self, ids_RN: Tensor) -> tuple[float, dict[int, Hits]]:
        loss, seen = 0.0, 0
        hits: dict[int, Hits] = {}
        for ids in ids_RN.split(self.recipe.rows):
            with mixed_precision(self.recipe):
                batch = look(self.target, ids.to(self.recipe.device), self.objective.points)
                loss += float(self.objective.loss(batch)) * ids.numel()
                for offset, found in self.objective.correct(batch).items():
                    hits[offset] = found if offset not in hits else hits[offset].plus(found)
            seen += ids.numel()
        return loss / seen, hits

    def _backward(self, ids: Tensor) -> float:
        with mixed_precision(self.recipe):
            batch = look(self.target, ids, self.objective.points)
            loss = self.objective.loss(batch) / self.recipe.accumulate
        loss.backward()
        return float(loss.detach())

    def _refuse_nonsense(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        value = loss if not math.isfinite(loss) else norm
        kept = (
            f"The last good checkpoint is kept in {self.checkpoint}; the same command goes on from"
            " there, with a lower --lr perhaps to somewhere better."
            if self.checkpoint.exists()
            else "No checkpoint had been written yet; start again with a lower --lr."
        )
        raise TrainingFailed(
            f"At step {self.meter.steps + 1} the {what} was {value}: training has stopped. {kept}"
        )

    def _look(self) -> None:
        recipe = self.recipe
        while self.meter.fraction >= (self._looks + 1) * recipe.evaluate_every:
            self._looks += 1
        self.latest, self._fresh = self.look_at_held_out(recipe.evaluate_tokens), True
        if self.latest.loss < self._best[0]:
            self._best, self._since_best = (self.latest.loss, _copy_of(self.module)), 0
        else:
            self._since_best += 1
        self.meter.ended = 0 < recipe.patience <= self._since_best


def _copy_of(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def _cuda(device: str) -> list[torch.device]:
    return [torch.device(device)] if device.startswith("cuda") else []


def _words(held_out: HeldOut | None) -> str:
    if held_out is None:
        return ""
    parts = [f"+{offset} {hits.top(1):.1%}" for offset, hits in held_out.text.items()]
    return "first guess right: " + ", ".join(parts)


def _packed(held_out: HeldOut) -> list[Any]:
    """As a checkpoint can hold it."""
    both = (held_out.text, held_out.written)
    plain = ({o: [list(h.by_rank), h.seen] for o, h in one.items()} for one in both)
    return [held_out.loss, *plain]


def _unpacked(packed: list[Any]) -> HeldOut:
    loss, *both = packed
    text, written = ({o: Hits(tuple(r), seen) for o, (r, seen) in one.items()} for one in both)
    return HeldOut(loss, text, written)
