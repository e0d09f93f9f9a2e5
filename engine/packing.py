"""Nodes of several requests side by side in one row, each looking at its own slot only.

Padding every request to the widest tree of the batch multiplies all matrix products; here only the
attention itself runs padded, (slots, widest), which is the small part of a pass. Prefixes that are
read together differ too much in length for that: each slot's attention is a call of its own. A
model needs nothing for either but the attention interface of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "draftree_packed"


class Packing(NamedTuple):
    """Where M packed nodes stand in a padded batch of B slots x N nodes."""

    node_BN: torch.Tensor  # int64, the packed node in each cell; 0 where there is none
    cell_M: torch.Tensor  # int64, the flat cell of each packed node


class Chains(NamedTuple):
    """New tokens of several slots in one row, those of a slot side by side.

    The mask has a row for each token, over columns that are the rows of the token's own slot.
    """

    slots: tuple[int, ...]
    counts: tuple[int, ...]  # new tokens of each
    ends: tuple[int, ...]  # columns that each looks at: what it held, and the new ones

    def flat(self, rows_1M: torch.Tensor, rows_per_slot: int) -> torch.Tensor:
        """Rows of the slots' own views as rows of all slots."""
        first = torch.tensor(self.slots) * rows_per_slot
        return rows_1M + first.repeat_interleave(torch.tensor(self.counts)).to(rows_1M.device)


_current: list[Packing | Chains] = []


def can_pack(attention: str) -> bool:
    """Whether a model loaded with this attention can run packed."""
    return attention == "sdpa"


def pack(num_new_B: np.ndarray, width: int) -> Packing:
    """Slots that have so many new nodes each, in cells `width` wide; nodes stand slot by slot."""
    filled_BN = np.arange(width) < num_new_B[:, None]
    cell_M = np.flatnonzero(filled_BN)
    node_BN = np.zeros(filled_BN.shape, np.int64)
    node_BN.reshape(-1)[cell_M] = np.arange(len(cell_M))
    return Packing(torch.from_numpy(node_BN), torch.from_numpy(cell_M))


@contextmanager
def packed(model: nn.Module, packing: Packing | Chains | None) -> Iterator[None]:
    """Attention of `model` as the packing says; as ever where it is None."""
    if packing is None:
        yield
        return
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = _NAME
    _current.append(packing)
    try:
        yield
    finally:
        _current.pop()
        config._attn_implementation = before


def _attention(
    module: nn.Module,
    query: torch.Tensor,  # (1, heads, M, dim)
    key: torch.Tensor,  # (B, key heads, L, dim)
    value: torch.Tensor,
    attention_mask: torch.Tensor,  # (B, 1, N, L), additive; of chains (1, 1, M, L)
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA over the padded cells; what comes back is packed again: (1, M, heads, value dim)."""
    packing = _current[-1]
    if isinstance(packing, Chains):
        return _by_slot(packing, module, query, key, value, attention_mask, **kwargs), None
    node_BN, cell_M = packing
    slots, width = node_BN.shape
    by_node = query[0].transpose(0, 1)
    cells = by_node.index_select(0, node_BN.reshape(-1))
    padded = cells.view(slots, width, *cells.shape[1:]).transpose(1, 2)
    out, _ = sdpa_attention_forward(module, padded, key, value, attention_mask, **kwargs)
    return out.reshape(slots * width, *out.shape[2:]).index_select(0, cell_M)[None], None


def _by_slot(
    chains: Chains,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    **kwargs: Any,
) -> torch.Tensor:
    """SDPA slot by slot, each over its own columns: (1, M, heads, value dim)."""
    out, first = [], 0
    for slot, count, end in zip(*chains, strict=True):
        own, new = slice(slot, slot + 1), slice(first, first + count)
        kv = (key[own, :, :end], value[own, :, :end])
        seen = mask[:, :, new, :end]
        out.append(sdpa_attention_forward(module, query[:, :, new], *kv, seen, **kwargs)[0])
        first += count
    return torch.cat(out, 1)


def attention(
    query: torch.Tensor,  # (B, heads, N, dim); (1, heads, M, dim) with a packing
    key: torch.Tensor,  # (B, heads, L, dim)
    value: torch.Tensor,
    mask: torch.Tensor,  # (B, 1, N, L), additive; of chains (1, 1, M, L)
    packing: Packing | Chains | None,
) -> torch.Tensor:
    """Attention of a module that is not the model's own: (B, N, heads, dim), packed (1, M, ...)."""
    module: Any = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1])
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, mask)[0]
    _current.append(packing)
    try:
        return _attention(module, query, key, value, mask)[0]
    finally:
        _current.pop()


AttentionInterface.register(_NAME, _attention)
