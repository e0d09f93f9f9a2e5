"""Training of draft heads on a frozen target: what every kind of head shares.

A kind of head brings an `Objective`: its module, the hidden states it reads, a loss, and how often
its guesses are right. The rest is here: batches of text run through the target under `no_grad`
(nothing is dumped to disk), gradient accumulation, mixed precision, the schedule, evaluation on
held-out text, early stopping, checkpoints; `engine.training.heads_run.train_head` does it. A killed
run with a budget of tokens goes on to the same weights as an unbroken one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from engine.training.batches import TokenArray
from engine.training.progress import Budget, PairProgress

RANKS = 10
"""Guesses that are looked at for each offset."""


@dataclass(frozen=True)
class HeadBatch:
    """Text, and what the frozen target made of it. No tensor carries a gradient."""

    ids_BN: Tensor
    """int64. Token n is followed by token n + 1 of the row."""
    states: dict[int, Tensor]
    """Hidden states (B, N, D) by point, those that the objective wants; float32."""
    logits_BNV: Tensor
    """The target's: row n is about token n + 1."""

    @cached_property
    def probs_BNV(self) -> Tensor:
        """The target's distribution at temperature 1, float32."""
        return self.logits_BNV.float().softmax(-1)


class Hits(NamedTuple):
    """How often guesses at one offset were right."""

    by_rank: tuple[int, ...]
    """Positions at which the guess of rank 0, 1, ... was the token; `RANKS` of them, or fewer."""
    seen: int
    """Positions looked at."""

    def plus(self, other: Hits) -> Hits:
        """Both together."""
        ranks = zip(self.by_rank, other.by_rank, strict=True)
        return Hits(tuple(a + b for a, b in ranks), self.seen + other.seen)

    def top(self, count: int) -> float:
        """Share of positions at which one of the first `count` guesses was right."""
        return sum(self.by_rank[:count]) / max(self.seen, 1)

    def as_json(self) -> dict[str, Any]:
        """For logs and cards."""
        return {
            "top1": round(self.top(1), 4),
            "top5": round(self.top(5), 4),
            "by_rank": [round(hits / max(self.seen, 1), 5) for hits in self.by_rank],
            "count": self.seen,
        }


class HeldOut(NamedTuple):
    """A look at held-out text."""

    loss: float
    """The objective's, nats."""
    text: dict[int, Hits]
    """Against the corpus, by offset."""
    written: dict[int, Hits]
    """Against text that the target wrote, by offset; empty where there is none."""

    def as_json(self) -> dict[str, Any]:
        """For logs and cards."""
        return {
            "loss": round(self.loss, 4),
            "held_out": {str(offset): hits.as_json() for offset, hits in self.text.items()},
            "written": {str(offset): hits.as_json() for offset, hits in self.written.items()},
        }


class Objective(Protocol):
    """A kind of head under training. Made as `Class(target, **options)`; see `engine.heads.KINDS`.

    Offsets count from the last token that the whole target has run: +1 is the token the target
    itself chooses there, so heads guess from +2 on. `loss` and `correct` are called in the module's
    training and evaluation mode; randomness comes from torch's global generator, which is seeded
    for each step.
    """

    module: nn.Module
    """What is trained (its parameters that require a gradient), and saved by its state dict."""
    points: tuple[int, ...]
    """Hidden states of the target that a batch must hold (`engine.parts`: points, NORMED)."""
    sees_next: bool
    """Whether a guess at +2 is made knowing the token at +1 (Medusa: no)."""

    def loss(self, batch: HeadBatch) -> Tensor:
        """A scalar with a gradient, a mean over positions, nats."""

    def correct(self, batch: HeadBatch) -> dict[int, Hits]:
        """Hits by offset against the text itself (`batch.ids_BN`)."""


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """Everything that decides what weights come out, besides target, text and objective."""

    budget: Budget
    """Tokens make a run repeatable bit for bit, minutes end it on time."""
    length: int = 256
    """Tokens of a row."""
    rows: int = 4
    """Rows of one pass."""
    written_share: float = 0.5
    """Share of the passes over rows that the target wrote, where there are such rows."""
    accumulate: int = 1
    """Passes whose gradients make one step."""
    optimiser: str = "adamw"
    """`muon`: for matrices inside the head, AdamW at a tenth of the rate for the rest."""
    lr: float = 3e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.02
    """Share of the budget over which the learning rate rises."""
    decay: float = 0.6
    """Share of the budget over which it falls to zero, at the end."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    dtype: str = "float32"
    """`bfloat16`: the target's weights and the head's products; its weights, their averages and all
    sums over the vocabulary stay float32."""
    seed: int = 0
    device: str = "cpu"
    evaluate_every: float = 0.05
    """Share of the budget between two looks at held-out text."""
    evaluate_tokens: int = 8192
    """Held-out tokens looked at each time; the same ones."""
    patience: int = 0
    """Looks without a better one after which the run ends; 0: it never ends early."""
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class HeadData:
    """Token streams of the target's tokenizer."""

    train: TokenArray
    held_out: TokenArray
    written_RT: TokenArray | None = None
    """Rows that the target wrote, each `HeadRecipe.length` long."""
    written_held_out_RT: TokenArray | None = None
    """Such rows, kept away from training: there nearly every token is the target's own choice."""


@dataclass(frozen=True, kw_only=True)
class HeadProgress(PairProgress):
    """A sign of life from a training of heads."""

    step: int = 0
    held_out: HeldOut | None = None
    """Set on the steps behind which held-out text was looked at."""


class Trained(NamedTuple):
    """What a training came to; the objective's module holds the weights."""

    held_out: HeldOut
    """At the end, on more text than on the way."""
    first: HeldOut
    """Before the first step."""
    step: int
    tokens: int
    seconds: float
    loss: float | None
    ended_early: bool
