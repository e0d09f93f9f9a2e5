"""Keeping an accepted path in the cache: its rows are moved down behind the prefix, in place.

Row i of a path is never above tree row i, and rows of a path ascend; so moving them one after
another, lowest first, reads every row before it is written, whatever overlaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import cuda, njit

from cuda_ext import memory
from cuda_ext.memory import How


def gather_rows(
    cache_LSRF: Any,
    slot_B: Any,
    start_B: Any,
    path_BN: Any,
    path_len_B: Any,
    *,
    how: How = "auto",
) -> None:
    """In every layer l and slot s: row start + i becomes row start + path[i].

    `cache_LSRF` (layers, slots, rows, features) is moved as it is, whatever its dtype; see
    `as_words`. `slot_B` is the slot of each path, `start_B` the first row of its tree, int32.
    """
    arrays = (slot_B, start_B, path_BN, path_len_B)
    if memory.use_kernel(how, cache_LSRF, *arrays):
        cache = memory.on_device(cache_LSRF)
        columns = cache.shape[0] * cache.shape[3]
        grid = (-(-columns // memory.THREADS), slot_B.shape[0])
        gather_rows_kernel[grid, memory.THREADS, memory.stream()](
            cache, *map(memory.on_device, arrays)
        )
        return
    gather_rows_twin(memory.on_host(cache_LSRF), *map(memory.on_host, arrays))


def as_words(cache_LSRF: torch.Tensor) -> torch.Tensor:
    """The same memory as int64, or the widest whole numbers that a row divides into."""
    for dtype in (torch.int64, torch.int32, torch.int16):
        if (cache_LSRF.shape[-1] * cache_LSRF.element_size()) % dtype.itemsize == 0:
            return cache_LSRF.view(dtype)
    return cache_LSRF.view(torch.int8)


@cuda.jit(device=True)
def move_column(
    layer: int, slot: int, feature: int, start: int, b: int, path_BN: Any, num: int, cache_LSRF: Any
) -> None:
    """One thread: one feature of all rows of a path."""
    for at in range(num):
        row = path_BN[b, at]
        if row != at:
            cache_LSRF[layer, slot, start + at, feature] = cache_LSRF[
                layer, slot, start + row, feature
            ]


@cuda.jit(cache=True)
def gather_rows_kernel(
    cache_LSRF: Any, slot_B: Any, start_B: Any, path_BN: Any, path_len_B: Any
) -> None:
    """Thread x of grid row b: one feature of one layer of request b. Neighbours read neighbours."""
    b = cuda.blockIdx.y
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    features = cache_LSRF.shape[3]
    if column < cache_LSRF.shape[0] * features:
        move_column(
            column // features, slot_B[b], column % features, start_B[b],
            b, path_BN, path_len_B[b], cache_LSRF,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def gather_rows_twin(
    cache_LSRF: np.ndarray,
    slot_B: np.ndarray,
    start_B: np.ndarray,
    path_BN: np.ndarray,
    path_len_B: np.ndarray,
) -> None:
    """As the kernel, a row at a time."""
    for b in range(len(slot_B)):
        slot, start = slot_B[b], start_B[b]
        for layer in range(cache_LSRF.shape[0]):
            for at in range(path_len_B[b]):
                row = path_BN[b, at]
                if row != at:
                    for feature in range(cache_LSRF.shape[3]):
                        cache_LSRF[layer, slot, start + at, feature] = cache_LSRF[
                            layer, slot, start + row, feature
                        ]


def reference_gather_rows(
    cache_LSRF: np.ndarray, slot_B: list[int], start_B: list[int], paths: list[list[int]]
) -> np.ndarray:
    """A new cache, by fancy indexing out of the old one."""
    moved = cache_LSRF.copy()
    for slot, start, path in zip(slot_B, start_B, paths, strict=True):
        rows = [start + row for row in path]
        moved[:, slot, start : start + len(path)] = cache_LSRF[:, slot, rows]
    return moved
