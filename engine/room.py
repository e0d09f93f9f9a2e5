"""Memory of a model's slots: keys, values and hidden states, a row per token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from cuda_ext.gather import as_words
from engine.forward import ShapeProbe
from engine.inside import Inside
from engine.models import DTYPES, LoadedModel


class Kept(NamedTuple):
    """Keys, values (slots, rows, heads, dim) and states (slots, rows, D) of one slot or of all."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    states: dict[int, torch.Tensor]

    def of(self, points: tuple[int, ...]) -> list[torch.Tensor]:
        """States at these points."""
        return [self.states[point] for point in points]


class Room:
    """Preallocated rows of so many slots. `more`: keys and values beyond the model's, as shapes.

    Rows are zeros at first: NaN in a masked row would leak through 0 * NaN.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        num_slots: int,
        rows_per_slot: int,
        points: tuple[int, ...] = (),
        more: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        self.num_slots, self.rows_per_slot = num_slots, rows_per_slot
        self._where: dict[str, Any] = {
            "dtype": DTYPES[loaded.dtype],
            "device": torch.device(loaded.device),
        }
        #: all layers as one tensor (2 x layers, slots, rows, features), where they are alike
        self._all_layers: torch.Tensor | None = None
        #: hidden states kept at each point, (slots, rows, D)
        self.states: dict[int, torch.Tensor] = {}
        if points:
            shape = (num_slots, rows_per_slot, Inside.of(loaded.model).hidden_size)
            self.states = {point: torch.zeros(shape, **self._where) for point in points}
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._allocate([*kv_shapes(loaded), *more])
        self.whole = Kept(self.keys, self.values, self.states)
        self._slots: dict[int, Kept] = {}

    def _allocate(self, shapes: list[tuple[int, int, int]]) -> None:
        """One block, a view per layer."""
        rows = self.num_slots * self.rows_per_slot
        total = sum(heads * (k + v) for heads, k, v in shapes)
        block = torch.zeros(rows * total, **self._where)
        if len(set(shapes)) == 1 and shapes[0][1] == shapes[0][2]:
            heads, dim, _ = shapes[0]
            self._all_layers = block.view(2 * len(shapes), self.num_slots, -1, heads * dim)
        at = 0
        for heads, key_dim, value_dim in shapes:
            for store, dim in ((self.keys, key_dim), (self.values, value_dim)):
                size = rows * heads * dim
                store.append(
                    block[at : at + size].view(self.num_slots, self.rows_per_slot, heads, dim)
                )
                at += size

    def of_slot(self, slot: int) -> Kept:
        """What is kept of one slot."""
        if slot not in self._slots:
            one = slice(slot, slot + 1)
            self._slots[slot] = Kept(
                [kv[one] for kv in self.keys],
                [kv[one] for kv in self.values],
                {point: kept[one] for point, kept in self.states.items()},
            )
        return self._slots[slot]

    @cached_property
    def words(self) -> list[torch.Tensor]:
        """Keys, values and states as whole numbers (layers, slots, rows, words), as they are moved.

        One tensor for keys and values where all layers are alike, else one for each.
        """
        states = [as_words(kept[None]) for kept in self.states.values()]
        if self._all_layers is not None:
            return [as_words(self._all_layers), *states]
        return [as_words(kv.flatten(2)[None]) for kv in (*self.keys, *self.values)] + states


def kv_shapes(loaded: LoadedModel) -> list[tuple[int, int, int]]:
    """(heads, key dim, value dim) of every layer, read off one eager pass over one token.

    Configurations name these in a dozen ways; what the model writes is beyond doubt.
    """
    probe = ShapeProbe()
    device = torch.device(loaded.device)
    one = torch.zeros(1, 1, dtype=torch.long, device=device)
    mask = torch.zeros(1, 1, 1, 1, dtype=DTYPES[loaded.dtype], device=device)
    masks: object = mask
    if loaded.windowed_dict:
        masks = {"full_attention": mask, "sliding_attention": mask}
    with torch.inference_mode():
        loaded.model(
            input_ids=one,
            position_ids=one,
            attention_mask=masks,
            past_key_values=probe,
            use_cache=True,
        )
    return [probe.shapes[layer] for layer in range(len(probe.shapes))]
