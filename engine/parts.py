"""Parts of a model: some of its layers, and the hidden states between them.

Self-speculation drafts with a part of the target and trained heads read what it thinks. This says
which part; engine/inside.py makes it of the model's own modules, without copying a weight.

Points count layers: point i is the input of layer i, so 0 are the embeddings and L is what the last
layer gives before the final norm. NORMED lies behind that norm: it is what the LM head reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch

NORMED = -1

#: queries, keys and values (B, heads, N, dim) to outputs (B, N, heads, dim)
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Sublayer(NamedTuple):
    """Attention or MLP of one layer."""

    kind: Literal["attention", "mlp"]
    layer: int


class Graft(Protocol):
    """A trained module that runs behind the last layer of a part, in place of the final norm."""

    #: heads, key and value size of each layer of keys and values that it keeps
    kv_shapes: tuple[tuple[int, int, int], ...]
    #: the folder that it was loaded from
    path: str

    @property
    def content_hash(self) -> str:
        """Identifies its weights."""

    def __call__(
        self, hidden_BND: torch.Tensor, positions_BN: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """What the LM head reads, (B, N, D)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a pass runs of a model. The default is all of it."""

    #: layers before this one do not run: the states kept at this point are read instead
    first: int = 0
    #: nor do layers from this one on; None: all do
    last: int | None = None
    #: only the residual stream passes these
    skipped: frozenset[Sublayer] = frozenset()
    #: points whose hidden states the pass keeps
    taps: tuple[int, ...] = ()
    graft: Graft | None = None

    @property
    def whole(self) -> bool:
        """Whether this is the model as it is."""
        return self == Part()

    @property
    def points(self) -> tuple[int, ...]:
        """Points whose states must be kept for the pass to run, in a fixed order."""
        return tuple(sorted({*self.taps, *([self.first] if self.first else [])}))

    @property
    def key(self) -> str:
        """Names the part, the graft's weights included."""
        skipped = ",".join(f"{kind[0]}{layer}" for kind, layer in sorted(self.skipped))
        taps = ",".join(map(str, self.taps))
        graft = self.graft.content_hash if self.graft is not None else ""
        return f"{self.first}:{self.last}|{skipped}|{taps}|{graft}"


@dataclass(frozen=True, slots=True)
class Uses:
    """What a method takes from the target's inside.

    Where there is a `draft` part, it drafts over the target's own keys and values; where the
    `target` part begins behind the first layer, verification goes on from the draft's states.
    """

    target: Part = Part()
    draft: Part | None = None

    @property
    def points(self) -> tuple[int, ...]:
        """All points whose states are kept."""
        draft = self.draft.points if self.draft is not None else ()
        return tuple(sorted({*self.target.points, *draft}))

    @property
    def kv_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Keys and values beyond those of the model: the graft's."""
        graft = self.draft.graft if self.draft is not None else None
        return graft.kv_shapes if graft is not None else ()
