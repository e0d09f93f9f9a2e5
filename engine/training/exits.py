"""Layer dropout and early-exit loss: how a target learns to say early what it will say in the end.

After LayerSkip (Elhoushi et al. 2404.16710, section 3.1). A model trained so is one that
`early-exit` can draft from; an ordinary one is not. An *exit* E is the model without its layers
from E on: what the first E layers give goes through the final norm and the LM head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from engine.training.agreement import held_out_windows
from engine.training.batches import TokenArray
from engine.training.models import precision


@dataclass(frozen=True, kw_only=True)
class ExitRecipe:
    """How much of it; nothing of it by default."""

    layer_dropout: float = 0.0
    """Chance that a window leaves out the last layer; lower layers are left out less often."""
    exit_loss: float = 0.0
    """Weight of the last exit's loss beside the full model's; lower exits weigh less."""
    rotation: int = 3
    """Every so many layers there is an exit in one step; the next step has the next ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.layer_dropout < 1:
            raise ValueError(
                f"layer dropout is a chance from 0 to below 1, not {self.layer_dropout}"
            )
        if not 0 <= self.exit_loss < float("inf"):
            raise ValueError(f"the exit loss is a weight from 0 on, not {self.exit_loss}")
        if self.rotation < 1:
            raise ValueError(f"exits rotate among at least 1 layer, not {self.rotation}")

    def __bool__(self) -> bool:
        return bool(self.layer_dropout or self.exit_loss)


NO_EXITS = ExitRecipe()
"""A target as it was ever trained."""


def dropout_rates(layers: int, *, most: float, curriculum: float = 1.0) -> list[float]:
    """Chances to leave out each layer: 0 for the first, growing exponentially to `most`.

    D(l) = exp(l ln 2 / (L - 1)) - 1 of the paper, times `most` and the curriculum's share.
    """
    last = max(1, layers - 1)
    return [most * curriculum * (2 ** (layer / last) - 1) for layer in range(layers)]


def exit_weights(layers: int, *, scale: float, step: int, rotation: int) -> dict[int, float]:
    """Exits of this step with their weights beside the full model's 1: `scale` * E / `layers`.

    Every exit has its turn once in `rotation` steps (the paper's rotational curriculum). The paper
    lets weights grow as 1 + 2 + ... + E; in a shallow model that would leave next to nothing for
    the exits that a draft uses, so they grow with E here.
    """
    return {
        exit_: scale * exit_ / layers
        for exit_ in range(1, layers)
        if scale and exit_ % rotation == step % rotation
    }


def exit_states(
    model: LlamaForCausalLM,
    tokens_BT: Tensor,
    *,
    exits: Sequence[int],
    rates: Sequence[float] = (),
    draws: np.random.Generator | None = None,
) -> dict[int, Tensor]:
    """Run the model once; return the states (B, T, D) after layers `exits`, and after the last.

    With `rates`, every row leaves layers out with these chances: stochastic depth by row, without
    rescaling, and without the cost of what is left out.
    """
    inner = model.model
    layers = list(inner.layers)
    hidden_BTD = inner.embed_tokens(tokens_BT)
    positions = torch.arange(tokens_BT.size(1), device=tokens_BT.device)[None]
    call: dict[str, Any] = {
        "attention_mask": None,  # causal
        "position_ids": positions,
        "position_embeddings": inner.rotary_emb(hidden_BTD, position_ids=positions),
        "use_cache": False,
    }
    found: dict[int, Tensor] = {}
    for index, layer in enumerate(layers):
        stay = np.ones(tokens_BT.size(0), bool)
        if draws is not None and rates[index]:
            stay = draws.random(tokens_BT.size(0)) >= rates[index]
        if stay.all():
            hidden_BTD = layer(hidden_BTD, **call)
        elif stay.any():
            rows = torch.from_numpy(np.flatnonzero(stay)).to(tokens_BT.device)
            hidden_BTD = hidden_BTD.index_copy(0, rows, layer(hidden_BTD[rows], **call))
        if index + 1 in exits or index + 1 == len(layers):
            found[index + 1] = hidden_BTD
    return found


def exit_losses(
    model: LlamaForCausalLM,
    batch_BT: Tensor,
    recipe: ExitRecipe,
    *,
    step: int,
    draws: np.random.Generator,
    curriculum: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the loss to go down, and that of the full model in it, nats a token.

    The first is the mean of cross entropies at the step's exits and at the end, by their weights.
    Windows (B, T + 1); layers are left out by `draws`.
    """
    layers = model.config.num_hidden_layers
    weights = exit_weights(layers, scale=recipe.exit_loss, step=step, rotation=recipe.rotation)
    weights[layers] = 1.0
    with precision(str(batch_BT.device)):
        states = exit_states(
            model,
            batch_BT[:, :-1],
            exits=list(weights),
            rates=dropout_rates(layers, most=recipe.layer_dropout, curriculum=curriculum),
            draws=draws,
        )
        logits = {exit_: model.lm_head(model.model.norm(states[exit_])) for exit_ in weights}
    said = batch_BT[:, 1:].flatten()
    losses = {
        exit_: functional.cross_entropy(logits_BTV.float().flatten(0, 1), said)
        for exit_, logits_BTV in logits.items()
    }
    total = torch.stack([weights[exit_] * loss for exit_, loss in losses.items()]).sum()
    return total / sum(weights.values()), losses[layers]


class ExitFigures(NamedTuple):
    """How good an exit is, on held-out text; the last one is the full model."""

    layer: int
    loss: float
    """Nats a token."""
    agreement: float
    """Share of tokens at which its first choice is the full model's."""


@torch.no_grad()
def measure_exits(
    model: LlamaForCausalLM, stream: TokenArray, *, window: int = 512, max_tokens: int = 65536
) -> list[ExitFigures]:
    """Measure every exit on the windows of `held_out_loss`."""
    layers = model.config.num_hidden_layers
    sums, seen = np.zeros((layers, 2)), 0
    for windows in held_out_windows(stream, window=window, max_tokens=max_tokens):
        tokens = windows.to(model.device)
        with precision(str(model.device)):
            states = exit_states(model, tokens[:, :-1], exits=range(1, layers))
            logits = {e: model.lm_head(model.model.norm(x))[0].float() for e, x in states.items()}
        full = logits[layers].argmax(-1)
        seen += len(full)
        for exit_, logits_TV in logits.items():
            loss = functional.cross_entropy(logits_TV, tokens[0, 1:], reduction="sum")
            same = (logits_TV.argmax(-1) == full).sum()
            sums[exit_ - 1] += float(loss), float(same)
    means = sums / seen
    return [ExitFigures(at + 1, float(loss), float(same)) for at, (loss, same) in enumerate(means)]
