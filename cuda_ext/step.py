"""One launch per step: judge all trees, keep their accepted rows, move their lengths on.

A block per node row reads the vocabulary; the last block of a request to finish, found by counting,
walks its tree, moves its cache rows and adds to its length. So the vocabulary is read by all of the
device, and nothing waits for a second launch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from cuda_ext import memory
from cuda_ext.accept import Scratch, Settings, accept, walk
from cuda_ext.arrays import MATCH, TYPICAL, Draws, RowStats, Trees, Verdicts
from cuda_ext.block import MOST_THREADS
from cuda_ext.checks import check_scale
from cuda_ext.gather import gather_rows, move_column
from cuda_ext.memory import How
from cuda_ext.rows import scan_row


class Cache(NamedTuple):
    """Where accepted rows are kept; of no layers where somebody else moves them."""

    words_LSRF: Any  # keys and values of all layers, as `as_words` gives them
    slot_B: Any  # int32, slot of each request
    length_S: Any  # int32, committed rows of every slot; the path's length is added


def no_cache(num_requests: int) -> Cache:
    """Nothing to move, lengths of its own."""
    return Cache(
        np.zeros((0, 0, 0, 0), np.int64),
        np.arange(num_requests, dtype=np.int32),
        np.zeros(num_requests, np.int32),
    )


def step(
    settings: Settings,
    trees: Trees,
    logits_RV: Any,
    *,
    draws: Draws,
    stats: RowStats,
    scratch: Scratch,
    out: Verdicts,
    cache: Cache,
    done_B: Any,
    how: How = "auto",
) -> None:
    """`accept`, then `gather_rows`, then the lengths. Trees must have passed `check_trees`.

    `done_B` (int32, zeros) counts blocks and is left at zero. Raises ValueError as `accept` does.
    """
    check_scale(settings.scale)
    if not memory.use_kernel(how, *trees, logits_RV, *draws, *out, *cache):
        accept(
            settings, trees, logits_RV,
            draws=draws, stats=stats, scratch=scratch, out=out, how="twin",
        )  # fmt: skip
        slot_B, length_S = memory.on_host(cache.slot_B), memory.on_host(cache.length_S)
        start_B = length_S[slot_B]
        gather_rows(cache.words_LSRF, slot_B, start_B, out.path_BN, out.path_len_B, how="twin")
        length_S[slot_B] += memory.on_host(out.path_len_B)
        return
    bfloat = memory.is_bfloat16(logits_RV)
    arrays = [
        memory.on_device(array)
        for array in (*trees, logits_RV, *draws, *stats, *scratch, *out, *cache, done_B)
    ]
    num_requests, num_nodes = trees.tokens_BN.shape
    step_kernel[(num_nodes, num_requests), memory.THREADS, memory.stream()](
        *settings, bfloat, *arrays
    )


@cuda.jit(cache=True)
def step_kernel(
    rule: int, scale: float, epsilon: float, alpha: float, bfloat: bool,
    tokens_BN: Any, parents_BN: Any, num_nodes_B: Any, first_B: Any, logits_RV: Any,
    noise_RV: Any, noise_row_BN: Any, uniforms_BN2: Any, draft_RV: Any, draft_row_BN: Any,
    choice_BN: Any, log_norm_BN: Any, negentropy_BN: Any, residual_BV: Any, left_BV: Any,
    path_BN: Any, path_len_B: Any, next_token_B: Any, origin_B: Any, fate_BN: Any,
    accept_prob_BN: Any, words_LSRF: Any, slot_B: Any, length_S: Any, done_B: Any,
) -> None:  # fmt: skip
    """Block (n, b): node n of request b; the last one goes on with the request."""
    floats = cuda.shared.array(MOST_THREADS, np.float64)
    ints = cuda.shared.array(MOST_THREADS, np.int64)
    tid, node, b = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
    if node >= num_nodes_B[b]:
        return
    noise_row = noise_row_BN[b, node] if rule in (MATCH, TYPICAL) else -1
    choice, log_norm, negentropy = scan_row(
        rule, scale, bfloat, logits_RV, first_B[b] + node, noise_RV, noise_row, floats, ints
    )
    if tid == 0:
        choice_BN[b, node] = choice
        log_norm_BN[b, node] = log_norm
        negentropy_BN[b, node] = negentropy
        cuda.threadfence()  # what is written stands before the count does
        ints[0] = cuda.atomic.add(done_B, b, 1)
    cuda.syncthreads()
    before = ints[0]
    cuda.syncthreads()
    if before != num_nodes_B[b] - 1:
        return
    cuda.threadfence()  # and what others wrote is seen after their count was
    if tid == 0:
        done_B[b] = 0
    walk(
        rule, scale, epsilon, alpha, bfloat, b, tokens_BN, parents_BN, num_nodes_B, first_B,
        logits_RV, choice_BN, log_norm_BN, negentropy_BN, uniforms_BN2, draft_RV, draft_row_BN,
        residual_BV, left_BV, path_BN, path_len_B, next_token_B, origin_B, fate_BN,
        accept_prob_BN, floats, ints,
    )  # fmt: skip
    slot, features = slot_B[b], words_LSRF.shape[3]
    start = length_S[slot]
    for column in range(tid, words_LSRF.shape[0] * features, cuda.blockDim.x):
        move_column(
            column // features, slot, column % features, start,
            b, path_BN, path_len_B[b], words_LSRF,
        )  # fmt: skip
    cuda.syncthreads()
    if tid == 0:
        length_S[slot] = start + path_len_B[b]
