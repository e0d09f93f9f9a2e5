"""One forward pass of a Hugging Face model over given cache rows. Compiled twin: compiled.py."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from engine.inside import Inside
from engine.packing import Chains, Packing, attention, packed
from engine.parts import Attend, Part
from engine.stand_ins import telling

_WHOLE = Part()


class RowCache(Cache):
    """Keys and values in preallocated rows; writes go to given rows, reads see the first L.

    Storage per layer: (slots, rows, heads, head_dim). transformers calls `update` and
    `get_seq_length` alone when a 4-D mask and position ids are given.
    """

    def __init__(
        self,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        rows_BN: torch.Tensor,
        *,
        slots: int,  # that are read, from the first one
        cols: int,
    ) -> None:
        self.keys, self.values = keys, values
        self.rows_BN = rows_BN
        self.slots, self.cols = slots, cols
        self.layers: list[Any] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (B, heads, N, dim) states to their rows; return (B, heads, L, dim) views.

        Of packed nodes the states come as (1, heads, M, dim).
        """
        out = []
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            kv = store[layer_idx]
            heads, dim = kv.shape[2:]
            kv.view(-1, heads, dim).index_put_(
                (self.rows_BN.reshape(-1),), states.transpose(1, 2).reshape(-1, heads, dim)
            )
            out.append(kv[: self.slots, : self.cols].transpose(1, 2))
        return out[0], out[1]

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        return 0


class ShapeProbe(Cache):
    """Stores nothing; notes (heads, key dim, value dim) of each layer as the model calls it."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, int, int]] = {}
        self.layers: list[Any] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes[layer_idx] = (key_states.shape[1], key_states.shape[3], value_states.shape[3])
        return key_states, value_states

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        return 0


class Logits(NamedTuple):
    """Outcome of a pass. The norms come along because a compiled pass has them almost for free."""

    logits_BNV: torch.Tensor  # (1, M, V) of packed nodes
    log_norm_BN: torch.Tensor  # float32, logsumexp of each row


class Forward(Protocol):
    """A forward pass: what the runner calls, whatever runs underneath."""

    mode: str
    min_slots: int  # it cannot run fewer
    packs: bool  # whether nodes of several slots come packed, not padded

    def envelope(self, num_nodes: int, num_slots: int) -> int:
        """Nodes per slot to pad to: the cheapest size at or above `num_nodes`."""

    def __call__(
        self,
        ids_BN: torch.Tensor,
        positions_BN: torch.Tensor,
        rows_BN: torch.Tensor,
        masks: list[torch.Tensor],  # (B, 1, N, L) each: plain, and windowed where needed
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        packing: Packing | None = None,
        *,
        states: list[torch.Tensor] | None = None,
    ) -> Logits:
        """Score the nodes; keys, values and hidden states of their rows are written in place.

        With a packing ids, positions and rows are (1, M); the masks are of the padded cells.
        `states` are (slots, rows, D) by point, in the order of the part's `points`.
        """


class HFStep(nn.Module):
    """The model as a function of plain tensors: the eager forward, and what is exported.

    Raises UserError where the model does not have the part.
    """

    def __init__(self, model: PreTrainedModel, *, windowed_dict: bool, part: Part = _WHOLE) -> None:
        super().__init__()
        self.points = part.points
        self._now = None
        self.model: Any = model
        if not part.whole:
            self.model, self._now = Inside.of(model).part(part)
        self.windowed_dict = windowed_dict

    def forward(
        self,
        ids_BN: torch.Tensor,
        positions_BN: torch.Tensor,
        rows_BN: torch.Tensor,
        masks: list[torch.Tensor],
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        packing: tuple[torch.Tensor, torch.Tensor] | Chains | None = None,
        logits_to_keep: int = 0,
        states: list[torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mask: Any = masks[-1]
        if self.windowed_dict:
            mask = {"full_attention": masks[0], "sliding_attention": masks[1]}
        extra = {"logits_to_keep": logits_to_keep} if logits_to_keep else {}
        pack: Packing | Chains | None
        if isinstance(packing, Chains):
            slots, pack = len(keys[0]), packing
        else:  # export knows plain tuples only
            slots, pack = masks[0].shape[0], None if packing is None else Packing(*packing)
        cache = RowCache(keys, values, rows_BN, slots=slots, cols=masks[0].shape[-1])
        with packed(self.model, pack), self._telling(positions_BN, cache, masks[0], pack, states):
            logits = self.model(
                input_ids=ids_BN,
                position_ids=positions_BN,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                **extra,
            ).logits
        return logits, torch.logsumexp(logits.float(), -1)

    def _telling(
        self,
        positions_BN: torch.Tensor,
        cache: RowCache,
        mask: torch.Tensor,
        packing: Packing | Chains | None,
        states: list[torch.Tensor] | None,
    ) -> AbstractContextManager[None]:
        """Tell the modules of a part what they need of this pass."""
        if self._now is None:
            return nullcontext()

        def attend(layer: int) -> Attend:
            def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
                return attention(query, *cache.update(key, value, layer), mask, packing)

            return run

        return telling(
            self._now,
            states=dict(zip(self.points, states or [], strict=True)),
            rows_BN=cache.rows_BN,
            positions_BN=positions_BN,
            attend=attend,
        )


class EagerForward:
    """PyTorch, operation by operation. Needs nothing, costs launch overhead."""

    mode = "eager"
    min_slots = 1

    def __init__(self, model: PreTrainedModel, *, windowed_dict: bool, part: Part = _WHOLE) -> None:
        self.packs = False  # the runner finds out whether the model can
        self.step = HFStep(model, windowed_dict=windowed_dict, part=part).eval()
        self._can_keep = "logits_to_keep" in inspect.signature(model.forward).parameters

    def envelope(self, num_nodes: int, num_slots: int) -> int:
        return num_nodes

    def __call__(
        self,
        ids_BN: torch.Tensor,
        positions_BN: torch.Tensor,
        rows_BN: torch.Tensor,
        masks: list[torch.Tensor],
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        packing: Packing | Chains | None = None,
        logits_to_keep: int = 0,
        *,
        states: list[torch.Tensor] | None = None,
    ) -> Logits:
        keep = logits_to_keep if self._can_keep else 0
        inputs = (ids_BN, positions_BN, rows_BN, masks, keys, values, packing, keep)
        with torch.inference_mode():
            return Logits(*self.step(*inputs, states))
