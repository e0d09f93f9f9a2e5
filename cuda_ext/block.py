"""What all threads of a block find out together, through shared memory alone.

No warp intrinsics, so that Numba's simulator runs the very code that a GPU runs. The block size is
a power of two. `floats` and `ints` are shared scratch with a place per thread; every function
leaves them free for the next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

#: places in shared scratch: most threads of a block, and most nodes of a tree
MOST_THREADS = 1024


@cuda.jit(device=True)
def block_sum(value: float, floats: Any) -> float:
    """Sum of every thread's value."""
    tid = cuda.threadIdx.x
    floats[tid] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if tid < half:
            floats[tid] += floats[tid + half]
        cuda.syncthreads()
        half //= 2
    total = floats[0]
    cuda.syncthreads()
    return total


@cuda.jit(device=True)
def block_max(value: float, floats: Any) -> float:
    """Largest of every thread's value."""
    tid = cuda.threadIdx.x
    floats[tid] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if tid < half and floats[tid + half] > floats[tid]:
            floats[tid] = floats[tid + half]
        cuda.syncthreads()
        half //= 2
    best = floats[0]
    cuda.syncthreads()
    return best


@cuda.jit(device=True)
def block_argmax(value: float, at: int, floats: Any, ints: Any) -> int:
    """The `at` of the largest value; of equal ones the lowest."""
    tid = cuda.threadIdx.x
    floats[tid] = value
    ints[tid] = at
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if tid < half:
            other = tid + half
            if floats[other] > floats[tid] or (
                floats[other] == floats[tid] and ints[other] < ints[tid]
            ):
                floats[tid] = floats[other]
                ints[tid] = ints[other]
        cuda.syncthreads()
        half //= 2
    best = ints[0]
    cuda.syncthreads()
    return best


@cuda.jit(device=True)
def widen(value: Any, bfloat: bool) -> float:
    """A logit as float64. bfloat16 comes as the int16 of the same bits: the high half of a float32.

    Widening here reads 2 bytes per logit; a cast by torch before would write and read 4 more.
    """
    if bfloat:
        bits = np.uint32(np.uint32(np.int32(value) & 0xFFFF) << np.uint32(16))
        return np.float64(bits.view(np.float32))
    return np.float64(value)
