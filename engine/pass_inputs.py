"""Inputs of a model's passes: those of trees in memory that lasts, those of prefixes made anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.packing import Chains

if TYPE_CHECKING:
    from engine.runner import Nodes

#: tokens of prefixes that one pass reads
READ_AT_ONCE = 512


class Buffers:
    """Persistent inputs of one envelope: NumPy views fill what torch reads, nothing is copied."""

    def __init__(self, num_slots: int, num_nodes: int, max_cols: int) -> None:
        shape = (num_slots, num_nodes)
        self.ids = torch.zeros(shape, dtype=torch.int64)
        self.positions = torch.zeros(shape, dtype=torch.int64)
        self.rows = torch.zeros(shape, dtype=torch.int64)
        self.ids_np, self.positions_np = self.ids.numpy(), self.positions.numpy()
        self.rows_np = self.rows.numpy()
        self.tokens_BN = np.zeros(shape, np.int64)
        self.parents_BN = np.zeros(shape, np.int32)
        self.num_new_B = np.zeros(num_slots, np.int32)
        self._shape = shape
        self._flat = torch.zeros(2, num_slots * num_nodes * max_cols)
        self._views: dict[tuple[int, int], tuple[list[np.ndarray], list[torch.Tensor]]] = {}

    def take(self, nodes: dict[int, Nodes]) -> None:
        """Tokens and parents of a pass, by row of the batch."""
        self.num_new_B[:] = 0
        for b, new in nodes.items():
            count = len(new.tokens_N)
            self.num_new_B[b] = count
            self.tokens_BN[b, :count] = new.tokens_N
            self.parents_BN[b, :count] = new.parents_N

    def masks(self, cols: int, kinds: int) -> tuple[list[np.ndarray], list[torch.Tensor]]:
        """Contiguous (B, N, cols) arrays and the (B, 1, N, cols) tensors over the same memory."""
        key = (cols, kinds)
        if key not in self._views:
            size = self._shape[0] * self._shape[1] * cols
            tensors = [
                self._flat[kind, :size].view(self._shape[0], 1, self._shape[1], cols)
                for kind in range(kinds)
            ]
            self._views[key] = ([t[:, 0].numpy() for t in tensors], tensors)
        return self._views[key]


class ChainInputs(NamedTuple):
    """Inputs of a pass over chains of several slots, side by side in one row."""

    ids_1M: torch.Tensor
    positions_1M: torch.Tensor
    rows_1M: torch.Tensor  # of each slot's own view
    masks: list[torch.Tensor]  # (1, 1, M, L)
    chains: Chains


def chain_inputs(
    new: dict[int, list[int]],
    lengths: dict[int, int],
    *,
    window: int,
    dtype: torch.dtype,
    device: torch.device,
) -> ChainInputs:
    """New tokens of each slot, a causal chain behind the `lengths` tokens that it holds."""
    ends = [lengths[slot] + len(tokens) for slot, tokens in new.items()]
    positions = torch.cat(
        [torch.arange(lengths[slot], end) for slot, end in zip(new, ends, strict=True)]
    ).to(device)
    distance = positions[:, None] - torch.arange(max(ends), device=device)
    masks = [distance >= 0]
    if window:
        masks.append((distance >= 0) & (distance < window))
    ids = torch.tensor([token for tokens in new.values() for token in tokens], device=device)
    return ChainInputs(
        ids[None],
        positions[None],
        positions[None],
        [additive(mask, dtype)[None, None] for mask in masks],
        Chains(tuple(new), tuple(map(len, new.values())), tuple(ends)),
    )


def reads(prefixes: dict[int, list[int]]) -> Iterator[dict[int, list[int]]]:
    """Prefixes in passes of at most READ_AT_ONCE tokens, slot by slot."""
    batch: dict[int, list[int]] = {}
    room = READ_AT_ONCE
    for slot, tokens in prefixes.items():
        at = 0
        while at < len(tokens):
            batch[slot] = tokens[at : at + room]
            at, room = at + len(batch[slot]), room - len(batch[slot])
            if not room:
                yield batch
                batch, room = {}, READ_AT_ONCE
    if batch:
        yield batch


def whole_inputs(
    tokens: list[int], parents: list[int], *, window: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Positions and allowed columns of a prefix and a tree behind it that are run from nothing.

    `tokens` has both, `parents` the tree's rows. Masks are (total, total), plain and windowed.
    """
    total = len(tokens)
    prefix = total - len(parents)
    allowed = np.tril(np.ones((total, total), bool))
    depth = np.arange(total)
    for row, parent in enumerate(parents):
        node, above = prefix + row, prefix + parent if parent >= 0 else prefix - 1
        allowed[node] = allowed[above] if above >= 0 else False
        allowed[node, node] = True
        depth[node] = depth[above] + 1 if above >= 0 else 0
    masks = [torch.from_numpy(allowed)]
    if window:
        near = depth[:, None] - depth[None, :] < window
        masks.append(torch.from_numpy(allowed & near))
    return torch.from_numpy(depth), masks


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where it is allowed to look, -inf elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, -torch.inf
    )
