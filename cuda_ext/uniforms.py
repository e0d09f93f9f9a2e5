"""Uniforms keyed by (seed, request, position, stream, root, node), many at once.

The very numbers that NumPy's counter-based generator gives as its first (Philox4x64-10, Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", 2011), without a generator per number.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_ROUNDS = 10


@njit(cache=True, nogil=True)
def _high(a: np.uint64, b: np.uint64) -> np.uint64:
    """Upper half of the 128-bit product."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    cross = a_high * b_low + (a_low * b_low >> _HALF)
    other = a_low * b_high + (cross & _LOW)
    return a_high * b_high + (cross >> _HALF) + (other >> _HALF)


@njit(cache=True, nogil=True)
def keyed_uniforms(
    seed: np.uint64, request: np.uint64, high: np.uint64, position: np.uint64, stream: np.uint64,
    out_K: np.ndarray,
) -> None:  # fmt: skip
    """Fill float64 in [0, 1): number k has counter (0, high + k, position, stream).

    `high` is root << 32; the key is (seed, request).
    """
    for k in range(len(out_K)):
        # the generator counts up before it draws
        c0, c1, c2, c3 = np.uint64(1), high + np.uint64(k), position, stream
        k0, k1 = seed, request
        for turn in range(_ROUNDS):
            if turn:
                k0 += _W0
                k1 += _W1
            high0, low0 = _high(_M0, c0), _M0 * c0
            high1, low1 = _high(_M1, c2), _M1 * c2
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        out_K[k] = np.float64(c0 >> np.uint64(11)) * (1.0 / 9007199254740992.0)
