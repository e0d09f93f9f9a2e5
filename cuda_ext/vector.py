"""Loops over the vocabulary that compile to vector instructions: what the CPU twins are made of.

A compiler calls `exp` number by number and adds in the order written. So here `exp` is arithmetic,
sums may be reordered, and a maximum is looked for a run at a time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: scores that are looked at together
RUN = 64
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
#: added and taken away again it rounds to a whole number, which meanwhile stands in the low bits
_ROUND = 6755399441055744.0
_LOWEST = -708.0


@njit(cache=True, nogil=True, inline="always")
def exp_of(x: float) -> float:
    """exp(x) for x up to 0 to the last bit or two; 0 below -708."""
    shifted = max(x, _LOWEST) * _LOG2_E + _ROUND
    whole = shifted - _ROUND
    r = (max(x, _LOWEST) - whole * _LN2_HIGH) - whole * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = np.float64(p).view(np.int64) + (np.float64(shifted).view(np.int64) << 52)
    return np.int64(bits).view(np.float64) if x >= _LOWEST else 0.0


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def sum_of(values_V: np.ndarray) -> float:
    """Their sum, in whatever order is quick."""
    total = 0.0
    for value in values_V:
        total += value
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def dot_of(a_V: np.ndarray, b_V: np.ndarray) -> float:
    """Sum of products."""
    total = 0.0
    for v in range(len(a_V)):
        total += a_V[v] * b_V[v]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def positive_mass(p_V: np.ndarray, q_V: np.ndarray) -> float:
    """Sum of max(p - q, 0)."""
    total = 0.0
    for v in range(len(p_V)):
        total += max(p_V[v] - q_V[v], 0.0)
    return total


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def max_of(scores_V: np.ndarray) -> float:
    """The largest."""
    best = scores_V[0]
    for score in scores_V:
        best = score if score > best else best
    return best


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _max_noisy(scores_V: np.ndarray, scale: float, noise_V: np.ndarray) -> float:
    best = scores_V[0] * scale + noise_V[0]
    for v in range(len(scores_V)):
        own = scores_V[v] * scale + noise_V[v]
        best = own if own > best else best
    return best


@njit(cache=True, nogil=True)
def argmax_of(scores_V: np.ndarray) -> int:
    """The largest, the first of equal ones."""
    best = max_of(scores_V)
    for v in range(len(scores_V)):
        if scores_V[v] == best:
            return v
    return 0


@njit(cache=True, nogil=True)
def argmax_noisy(scores_V: np.ndarray, scale: float, noise_V: np.ndarray) -> int:
    """The largest of scores * scale + noise, the first of equal ones."""
    best = _max_noisy(scores_V, scale, noise_V)
    for v in range(len(scores_V)):
        if scores_V[v] * scale + noise_V[v] == best:
            return v
    return 0


@njit(cache=True, nogil=True)
def exps(scores_V: np.ndarray, scale: float, less: float, out_V: np.ndarray) -> None:
    """out = exp(scores * scale - less), none above 0."""
    for v in range(len(scores_V)):
        out_V[v] = exp_of(scores_V[v] * scale - less)


@njit(cache=True, nogil=True)
def differences(scores_V: np.ndarray, scale: float, less: float, out_V: np.ndarray) -> None:
    """out = scores * scale - less, at least -10,000 so that nothing times it is something."""
    for v in range(len(scores_V)):
        out_V[v] = max(scores_V[v] * scale - less, -1e4)
