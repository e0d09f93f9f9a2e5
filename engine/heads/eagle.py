"""EAGLE heads: one decoder layer that carries the target's features on, token by token.

Row t of a head reads the embedding of token t + 1 and the feature of position t, and foretells
token t + 2. The feature of a token that the target has run is made of the target's states; of a
token only drafted, it is what the head itself gave for the row before. `EagleHead` is that of
EAGLE-3 (Li et al., 2503.01840, section 3), which is trained here; `FirstHead` that of EAGLE-1 and 2
(2401.15077, 2406.16858), which is loaded as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.heads.eagle_layers import EagleLayer, FirstLayer
from engine.heads.eagle_shape import EagleShape, check_fits, shape_for
from engine.heads.norms import RMSNorm, gain_of, weights_hash
from engine.inside import Inside
from engine.models import LoadedModel
from engine.parts import NORMED, Attend

#: how much of the usual random weights an untrained `fc` keeps
_NOISE = 0.3


class AnyEagle(nn.Module):
    """Feature in, next feature out; `read` makes a feature of the target's states.

    The target's embeddings and, but for heads with a vocabulary of their own, its LM head are not
    part of it: whoever runs the head brings them.
    """

    kind: ClassVar[str] = "eagle"
    #: before the LM head
    norm: nn.Module
    #: of an own LM head: how far the target's token lies above its row
    d2t: Tensor

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        self.shape = shape
        #: the folder it was loaded from; whoever loads it names that
        self.path = ""
        self.lm_head: nn.Linear | None = None

    @property
    def layer(self) -> EagleLayer | FirstLayer:
        """What carries features on."""
        raise NotImplementedError

    def sizes(self) -> dict[str, Any]:
        """All that `build` needs, as JSON."""
        return asdict(self.shape) | {"points": list(self.shape.points)}

    def read(self, states: Sequence[Tensor]) -> Tensor:
        """Features (..., hidden) of the target's states (..., target_hidden), one per point."""
        raise NotImplementedError

    def forward(
        self, features_BND: Tensor, embeds_BNE: Tensor, positions_BN: Tensor, attend: Attend
    ) -> Tensor:
        """The features that follow; `norm` and the LM head make logits of them."""
        out: Tensor = self.layer(features_BND, embeds_BNE, positions_BN, attend)
        return out

    @cached_property
    def content_hash(self) -> str:
        """Of sizes and weights, which do not change any more once this is asked for."""
        return weights_hash(self, self.sizes())

    @property
    def tokens(self) -> Tensor | None:
        """Target token of each row of an own LM head, (draft_vocab); None: all, in order."""
        if self.lm_head is None:
            return None
        return torch.arange(self.shape.draft_vocab, device=self.d2t.device) + self.d2t


class EagleHead(AnyEagle):
    """EAGLE-3's: a feature is `fc` of the target's states at a few depths."""

    norm: RMSNorm

    def __init__(self, shape: EagleShape) -> None:
        super().__init__(shape)
        self.fc = nn.Linear(len(shape.points) * shape.target_hidden, shape.hidden, bias=False)
        self.midlayer = EagleLayer(shape)
        self.norm = RMSNorm(shape.hidden, eps=shape.eps)
        if shape.draft_vocab:
            self.lm_head = nn.Linear(shape.hidden, shape.draft_vocab, bias=False)
            self.register_buffer("d2t", torch.zeros(shape.draft_vocab, dtype=torch.long))
        # untrained, the layer adds nothing to the feature
        nn.init.zeros_(self.midlayer.self_attn.o_proj.weight)
        nn.init.zeros_(self.midlayer.mlp.down_proj.weight)

    @property
    def layer(self) -> EagleLayer:
        return self.midlayer

    @classmethod
    def build(cls, sizes: dict[str, Any], target: LoadedModel) -> Self:
        """An untrained head; sizes that are not given follow the target's.

        Its features are little more than the highest states that it reads, and its norm is the
        target's: training finds its way sooner from there than from noise. Raises UserError for
        sizes that make no head, or a head of another target.
        """
        shape = shape_for(sizes, target)
        check_fits(shape, target)
        head = cls(shape)
        if shape.target_hidden == shape.hidden:
            with torch.no_grad():
                head.fc.weight.mul_(_NOISE)
                head.fc.weight[:, -shape.hidden :] += torch.eye(shape.hidden)
                head.norm.weight.copy_(gain_of(Inside.of(target.model).norm, shape.hidden))
        return head

    @classmethod
    def read_published(cls, folder: Path, target: LoadedModel) -> AnyEagle | None:
        """A head in a layout of SafeAILab/EAGLE, None where there is none."""
        from engine.heads.eagle_published import read
        from engine.heads.files import fill

        found = read(folder, target)
        if found is None:
            return None
        head = (FirstHead if found.first else cls).build(found.sizes, target)
        fill(head, found.state, folder)
        return head

    def read(self, states: Sequence[Tensor]) -> Tensor:
        """Features (..., hidden) of the target's states (..., target_hidden), one per point."""
        if self.shape.normed_states:
            states = [
                functional.rms_norm(state, state.shape[-1:], eps=self.shape.eps) for state in states
            ]
        out: Tensor = self.fc(torch.cat(list(states), -1))
        return out


class FirstHead(AnyEagle):
    """EAGLE-1's and 2's: a feature is what the target's LM head reads; the head foretells it."""

    def __init__(self, shape: EagleShape, *, fc_bias: bool, qkv_bias: bool) -> None:
        super().__init__(shape)
        first = FirstLayer(shape, fc_bias=fc_bias, qkv_bias=qkv_bias)
        self.layers = nn.ModuleList([first])
        self.norm = nn.Identity()

    @property
    def layer(self) -> FirstLayer:
        return cast(FirstLayer, self.layers[0])

    @classmethod
    def build(cls, sizes: dict[str, Any], target: LoadedModel) -> Self:
        """A head of random weights; `fc_bias` and `qkv_bias` say what has biases.

        Raises UserError for sizes of another target.
        """
        biases = {name: bool(sizes.get(name)) for name in ("fc_bias", "qkv_bias")}
        others = {name: size for name, size in sizes.items() if name not in biases}
        shape = shape_for(others | {"points": (NORMED,), "normed_states": False}, target)
        check_fits(shape, target)
        return cls(shape, **biases)

    def read(self, states: Sequence[Tensor]) -> Tensor:
        """The target's normed last states, as they are."""
        (normed,) = states
        return normed
