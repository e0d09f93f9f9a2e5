"""How ranks hand each other their candidates: one all-gather per level of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import distributed


class Exchange(Protocol):
    """A place among `size` ranks that exchange small arrays."""

    rank: int
    size: int

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        """Everybody's array of one shape and dtype, (size, *shape), in order of ranks."""


class Alone:
    """One rank has nobody to exchange with."""

    rank = 0
    size = 1

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        return values[None]


class GroupExchange:
    """Ranks of a `torch.distributed` group. Candidates lie on the host, so it is gloo's."""

    def __init__(self, group: distributed.ProcessGroup, ranks: Sequence[int]) -> None:
        self._group = group
        self.size = len(ranks)
        self.rank = list(ranks).index(distributed.get_rank())

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        mine = torch.from_numpy(np.ascontiguousarray(values))
        found = torch.empty((self.size, *mine.shape), dtype=mine.dtype)
        distributed.all_gather(list(found.unbind(0)), mine, group=self._group)
        return found.numpy()
