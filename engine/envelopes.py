"""Sizes that passes are rounded up to, and buffers of those sizes that stay where they are.

A CUDA graph is valid for one set of shapes and addresses, and code compiled for fixed shapes for
one set of shapes. So inputs are copied into buffers of an `Envelope`; what is left of the buffers
is padding that writes to spare cache rows (`engine/replaying.py` runs passes over them).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from engine.packing import Packing

#: nodes and slots of an envelope; beyond the last, its multiples
SIZES = (1, 2, 4, 8, 16, 32, 64)
#: narrowest cache window of an envelope; wider ones double
FEWEST_COLUMNS = 256


class Envelope(NamedTuple):
    """Shapes that a pass is padded to, and the cache it runs over."""

    slots: int
    width: int  # nodes per slot
    packed: int  # nodes of all slots side by side; 0: they are padded to `width` each
    columns: int  # cache rows that are looked at
    cache: int  # address of the first layer's keys

    def holds(self, other: Envelope) -> bool:
        """Whether a pass of `other` fits in here."""
        same = self.cache == other.cache and bool(self.packed) == bool(other.packed)
        return same and all(own >= its for own, its in zip(self, other, strict=True))

    @property
    def rows(self) -> int:
        """Rows of the matrix products: what a pass mostly costs by."""
        return self.packed or self.slots * self.width


class Inputs(NamedTuple):
    """What one envelope's pass reads, at addresses that never change."""

    ids_BN: torch.Tensor  # int64; (1, M) of packed nodes, and so the next two
    positions_BN: torch.Tensor  # int64
    rows_BN: torch.Tensor  # int64
    masks: list[torch.Tensor]  # (B, 1, N, L) each, of the model's dtype
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    packing: Packing | None


def round_up(size: int, sizes: tuple[int, ...] = SIZES) -> int:
    """The first of `sizes` at or above `size`, or a multiple of the last one."""
    for one in sizes:
        if one >= size:
            return one
    return -(-size // sizes[-1]) * sizes[-1]


def columns_up(columns: int, rows_per_slot: int) -> int:
    """The cache window for so many columns: doubling, at most the whole slot."""
    wide = FEWEST_COLUMNS
    while wide < columns:
        wide *= 2
    return min(wide, rows_per_slot)


def envelope_of(given: Inputs) -> Envelope:
    """The envelope of a pass: slots and rows as far as the cache has them."""
    slots, rows = given.keys[0].shape[:2]
    batch, _, width, columns = given.masks[0].shape
    return Envelope(
        slots=min(round_up(batch), slots),
        width=round_up(width),
        packed=round_up(given.ids_BN.shape[1]) if given.packing is not None else 0,
        columns=columns_up(columns, rows),
        cache=given.keys[0].data_ptr(),
    )


class Buffers:
    """Inputs of one envelope, where they stay; a pass that is smaller is padded in them."""

    def __init__(self, envelope: Envelope, given: Inputs) -> None:
        slots, width = envelope.slots, envelope.width
        store = given.keys[0]
        device, rows_per_slot = store.device, store.shape[1]
        shape = (1, envelope.packed) if envelope.packed else (slots, width)
        masks = (slots, 1, width, envelope.columns)

        def zeros(*sizes: int) -> torch.Tensor:
            return torch.zeros(sizes, dtype=torch.int64, device=device)

        packing = Packing(zeros(slots, width), zeros(envelope.packed)) if envelope.packed else None
        self.inputs = Inputs(
            zeros(*shape),
            zeros(*shape),
            zeros(*shape),
            [torch.zeros(masks, dtype=store.dtype, device=device) for _ in given.masks],
            given.keys,
            given.values,
            packing,
        )
        #: the last row of each slot is nobody's: padding writes there
        self._spare_B1 = (torch.arange(shape[0], device=device)[:, None] + 1) * rows_per_slot - 1
        self._region: tuple[torch.Size, ...] = ()

    def fill(self, given: Inputs) -> None:
        """Copy a pass's inputs in; what is left of the buffers is padding."""
        region = (given.ids_BN.shape, given.masks[0].shape)
        if region != self._region:  # else the last pass left padding where this one needs it
            self._pad()
            self._region = region
        own = self.inputs
        batch, nodes = given.ids_BN.shape
        for into, values in zip(own[:3], given[:3], strict=True):
            into[:batch, :nodes].copy_(values, non_blocking=True)
        slots, _, width, columns = given.masks[0].shape
        for into, mask in zip(own.masks, given.masks, strict=True):
            into[:slots, :, :width, :columns].copy_(mask, non_blocking=True)
        if own.packing is not None:
            assert given.packing is not None
            own.packing.node_BN[:slots, :width].copy_(given.packing.node_BN, non_blocking=True)
            cell_M, given_width = given.packing.cell_M, given.packing.node_BN.shape[1]
            if given_width != own.packing.node_BN.shape[1]:  # cells are counted in wider rows here
                slot_M = cell_M // given_width
                cell_M = cell_M + slot_M * (own.packing.node_BN.shape[1] - given_width)
            own.packing.cell_M[:nodes].copy_(cell_M, non_blocking=True)

    def _pad(self) -> None:
        """Every node writes to a spare row and every cell looks at row 0 alone: never NaN.

        Of packed nodes those beyond the given ones read cell 0, and nobody reads them.
        """
        own = self.inputs
        own.ids_BN.zero_()
        own.positions_BN.zero_()
        own.rows_BN.copy_(self._spare_B1.expand_as(own.rows_BN))
        for mask in own.masks:
            mask.fill_(-torch.inf)
            mask[..., 0] = 0.0
        for part in own.packing or ():
            part.zero_()
