"""The inside of a causal LM, whatever its architecture calls it, and parts made of it.

Self-speculation and trained heads need the same few things of any architecture: where the layers
lie, a way to leave some out, and a way to keep or resume hidden states.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import nn

from engine.errors import UserError
from engine.parts import NORMED, Part
from engine.stand_ins import Bypass, Grafted, Now, Resume, Tapped, copy_of, without


class Inside(NamedTuple):
    """Where the parts of a causal LM lie, whatever its architecture calls them."""

    model: nn.Module
    path: tuple[str, ...]  # of modules from the model to the one that holds the layers
    layers_name: str
    norm_name: str  # empty: there is none

    @classmethod
    def of(cls, model: nn.Module) -> Inside:
        """Raises UserError where the layers are not to be found."""
        config: Any = model.config
        wanted = int(config.get_text_config(decoder=True).num_hidden_layers)
        for name, module in model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == wanted:
                *path, layers_name = name.split(".")
                holder = model.get_submodule(".".join(path))
                norms = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
                norm = next((n for n in norms if getattr(holder, n, None) is not None), "")
                return cls(model, tuple(path), layers_name, norm)
        raise UserError(f"The {wanted} layers of this {config.model_type} model were not found.")

    @property
    def holder(self) -> nn.Module:
        """The module that runs the layers."""
        return self.model.get_submodule(".".join(self.path))

    @property
    def layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, getattr(self.holder, self.layers_name))

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def hidden_size(self) -> int:
        config: Any = self.model.config
        return int(config.get_text_config(decoder=True).hidden_size)

    @property
    def norm(self) -> nn.Module | None:
        """The norm behind the last layer."""
        return getattr(self.holder, self.norm_name) if self.norm_name else None

    @property
    def embed(self) -> nn.Module:
        """Tokens to input embeddings."""
        return cast(Any, self.model).get_input_embeddings()

    @property
    def lm_head(self) -> nn.Module:
        return cast(Any, self.model).get_output_embeddings()

    def head(self, normed: torch.Tensor) -> torch.Tensor:
        """Logits of states at the point NORMED."""
        logits = self.lm_head(normed)
        config: Any = self.model.config
        cap = getattr(config.get_text_config(decoder=True), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def part(self, part: Part) -> tuple[nn.Module, Now]:
        """The model as `part` has it, and what its passes must be told. Shares all weights.

        Raises UserError for layers that the model does not have.
        """
        self.check(part)
        now = Now()
        layers = list(self.layers)
        last = self.num_layers if part.last is None else part.last
        for at, layer in enumerate(layers):
            runs = part.first <= at < last
            silent = {kind for kind, where in part.skipped if where == at}
            if not runs or len(silent) == 2:
                layers[at] = Bypass(layer)
            elif silent:
                layers[at] = without(layer, silent, self.hidden_size)
        if part.first:
            layers[0] = Resume(layers[0], now, part.first)
        if part.graft is not None:
            layers[last] = Grafted(layers[last], now, part.graft, self.num_layers)
        for at in range(self.num_layers):
            if at in part.taps:
                layers[at] = Tapped(layers[at], now, at, None)
        clones = [copy_of(self.model)]
        for name in self.path:
            inner = copy_of(clones[-1].get_submodule(name))
            clones[-1]._modules[name] = inner
            clones.append(inner)
        clones[-1]._modules[self.layers_name] = nn.ModuleList(layers)
        norm = self.norm
        if norm is not None:
            if part.graft is not None:
                norm = nn.Identity()
            if self.num_layers in part.taps or NORMED in part.taps:
                norm = Tapped(norm, now, self.num_layers, NORMED)
            clones[-1]._modules[self.norm_name] = norm
        return clones[0], now

    def check(self, part: Part) -> None:
        """Raises UserError for a part that this model does not have."""
        count = self.num_layers
        name = f"A model of {count} layers"
        last = count if part.last is None else part.last
        if not 0 <= part.first < last <= count:
            raise UserError(f"{name} has no layers {part.first} to {last - 1}.")
        if part.graft is not None and last == count:
            raise UserError(f"{name} leaves nothing for a head behind layer {last - 1} to save.")
        for kind, layer in part.skipped:
            if not 0 <= layer < count:
                raise UserError(f"{name} has no {kind} {layer}: they count from 0 to {count - 1}.")
        for point in part.taps:
            if not -1 <= point <= count:
                raise UserError(f"{name} has no point {point}: they count from 0 to {count}.")
            if point in (NORMED, count) and self.norm is None:
                raise UserError("This model has no final norm, and its last states are not kept.")


def capture(
    model: nn.Module, points: tuple[int, ...], **call: Any
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Logits and the hidden states (B, N, D) at points, of a plain pass; for training."""
    clone, now = Inside.of(model).part(Part(taps=points))
    now.captured = {}
    logits = clone(**call).logits
    return logits, {point: now.captured[point] for point in points}
