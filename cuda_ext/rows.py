"""What the target does after each node: its own token, its normaliser, its entropy.

The one job here that reads the whole vocabulary for every node: a block per node row, one pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda, njit

from cuda_ext import memory
from cuda_ext.arrays import GREEDY, MATCH, TYPICAL, Draws, RowStats, Trees
from cuda_ext.block import MOST_THREADS, block_argmax, block_max, block_sum, widen
from cuda_ext.memory import How
from cuda_ext.vector import (
    RUN,
    argmax_noisy,
    argmax_of,
    differences,
    dot_of,
    exps,
    max_of,
    sum_of,
)


def row_stats(
    rule: int,
    trees: Trees,
    logits_RV: Any,
    *,
    scale: float,
    draws: Draws,
    out: RowStats,
    how: How = "auto",
) -> None:
    """Fill `out` for every node. `scale` is 1 / temperature; noise is added for match and typical.

    Under greedy only the choice is found; under match the normaliser is good to 1e-6 alone, since
    no decision hangs on it.
    """
    if memory.use_kernel(how, *trees, logits_RV, *draws, *out):
        num_requests, num_nodes = trees.tokens_BN.shape
        arrays = [
            memory.on_device(a)
            for a in (trees.num_nodes_B, trees.first_B, logits_RV, draws.noise_RV,
                      draws.noise_row_BN, *out)
        ]  # fmt: skip
        grid = (num_nodes, num_requests)
        row_stats_kernel[grid, memory.THREADS, memory.stream()](
            rule, scale, memory.is_bfloat16(logits_RV), *arrays
        )
        return
    row_stats_twin(
        rule, scale, *(memory.on_host(a) for a in (trees.num_nodes_B, trees.first_B, logits_RV,
                       draws.noise_RV, draws.noise_row_BN, *out)),
    )  # fmt: skip


@cuda.jit(device=True)
def scan_row(
    rule: int,
    scale: float,
    bfloat: bool,
    logits_RV: Any,
    row: int,
    noise_RV: Any,
    noise_row: int,
    floats: Any,
    ints: Any,
) -> Any:
    """(choice, log norm, sum of p log p) of one row, the same in every thread.

    The sums are kept relative to the largest logit so far, so that one pass does.
    """
    vocab_size = logits_RV.shape[1]
    best, at = -math.inf, cuda.threadIdx.x
    top, mass, spread = -math.inf, 0.0, 0.0
    for v in range(cuda.threadIdx.x, vocab_size, cuda.blockDim.x):
        score = widen(logits_RV[row, v], bfloat) * scale
        own = score
        if noise_row >= 0:
            own += noise_RV[noise_row, v]
        if own > best:
            best, at = own, v
        if rule == MATCH:
            if score > top:
                mass = mass * math.exp(np.float32(top - score)) + 1.0
                top = score
            elif score > -math.inf:
                mass += math.exp(np.float32(score - top))
        elif rule != GREEDY:
            if score > top:
                if mass > 0.0:
                    less = math.exp(top - score)
                    spread = (spread + mass * (top - score)) * less
                    mass *= less
                mass += 1.0
                top = score
            elif score > -math.inf:
                more = math.exp(score - top)
                mass += more
                spread += more * (score - top)
    choice = block_argmax(best, at, floats, ints)
    if rule == GREEDY:
        return choice, 0.0, 0.0
    highest = block_max(top, floats)
    if top > -math.inf:
        less = math.exp(top - highest)
        spread = (spread + mass * (top - highest)) * less
        mass *= less
    else:
        spread, mass = 0.0, 0.0
    mass = block_sum(mass, floats)
    log_mass = math.log(mass)
    negentropy = 0.0
    if rule == TYPICAL:
        negentropy = block_sum(spread, floats) / mass - log_mass
    return choice, highest + log_mass, negentropy


@cuda.jit(cache=True)
def row_stats_kernel(
    rule: int,
    scale: float,
    bfloat: bool,
    num_nodes_B: Any,
    first_B: Any,
    logits_RV: Any,
    noise_RV: Any,
    noise_row_BN: Any,
    choice_BN: Any,
    log_norm_BN: Any,
    negentropy_BN: Any,
) -> None:
    """Block (n, b): node n of request b."""
    floats = cuda.shared.array(MOST_THREADS, np.float64)
    ints = cuda.shared.array(MOST_THREADS, np.int64)
    node, b = cuda.blockIdx.x, cuda.blockIdx.y
    if node >= num_nodes_B[b]:
        return
    noise_row = noise_row_BN[b, node] if rule in (MATCH, TYPICAL) else -1
    choice, log_norm, negentropy = scan_row(
        rule, scale, bfloat, logits_RV, first_B[b] + node, noise_RV, noise_row, floats, ints
    )
    if cuda.threadIdx.x == 0:
        choice_BN[b, node] = choice
        log_norm_BN[b, node] = log_norm
        negentropy_BN[b, node] = negentropy


@njit(cache=True, nogil=True)
def own_token(scale: float, logits_V: np.ndarray, noise_V: np.ndarray, noisy: bool) -> int:
    """The target's own token: argmax of scaled logits + noise, the lowest of equal ones."""
    return argmax_noisy(logits_V, scale, noise_V) if noisy else argmax_of(logits_V)


@njit(cache=True, nogil=True)
def log_norm_of(scale: float, logits_V: np.ndarray) -> float:
    """logsumexp of scaled logits."""
    top = np.float64(max_of(logits_V)) * scale
    some, mass = np.empty(RUN), 0.0
    for start in range(0, len(logits_V), RUN):
        run = logits_V[start : start + RUN]
        exps(run, scale, top, some)
        mass += sum_of(some[: len(run)])
    return top + math.log(mass)


@njit(cache=True, nogil=True)
def norm_and_negentropy(scale: float, logits_V: np.ndarray) -> tuple[float, float]:
    """logsumexp of scaled logits, and the sum of p log p; probability 0 adds nothing to it."""
    top = np.float64(max_of(logits_V)) * scale
    some, below, mass, spread = np.empty(RUN), np.empty(RUN), 0.0, 0.0
    for start in range(0, len(logits_V), RUN):
        run = logits_V[start : start + RUN]
        exps(run, scale, top, some)
        differences(run, scale, top, below)
        mass += sum_of(some[: len(run)])
        spread += dot_of(some[: len(run)], below[: len(run)])
    return top + math.log(mass), spread / mass - math.log(mass)


@njit(cache=True, nogil=True)
def row_stats_twin(
    rule: int,
    scale: float,
    num_nodes_B: np.ndarray,
    first_B: np.ndarray,
    logits_RV: np.ndarray,
    noise_RV: np.ndarray,
    noise_row_BN: np.ndarray,
    choice_BN: np.ndarray,
    log_norm_BN: np.ndarray,
    negentropy_BN: np.ndarray,
) -> None:
    """As the kernel, a row at a time."""
    noisy = rule in (MATCH, TYPICAL)
    for b in range(len(num_nodes_B)):
        for node in range(num_nodes_B[b]):
            logits_V = logits_RV[first_B[b] + node]
            noise_V = noise_RV[noise_row_BN[b, node]] if noisy else noise_RV.ravel()
            choice_BN[b, node] = own_token(scale, logits_V, noise_V, noisy)
            if rule != GREEDY:
                log_norm_BN[b, node], negentropy_BN[b, node] = norm_and_negentropy(scale, logits_V)


def reference_row_stats(
    logits_V: np.ndarray, *, scale: float, noise_V: np.ndarray | None = None
) -> tuple[int, float, float]:
    """One row in the plainest way: (choice, log norm, sum of p log p)."""
    scores = logits_V.astype(np.float64) * scale
    choice = int(np.argmax(scores if noise_V is None else scores + noise_V))
    log_norm = float(np.logaddexp.reduce(scores))
    log_p = scores - log_norm
    some = log_p[np.exp(log_p) > 0.0]
    return choice, log_norm, float((np.exp(some) * some).sum())
