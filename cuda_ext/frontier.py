"""Growing a tree: the best children of frontier nodes, and the best nodes of all there are.

Both are what `engine/growth.py` does for one node or tree, for many at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda, njit

from cuda_ext import memory
from cuda_ext.block import MOST_THREADS, block_argmax, block_max, block_sum, widen
from cuda_ext.memory import How
from cuda_ext.vector import RUN, exp_of

#: most children of one node
MOST_CHILDREN = 64
#: a child that is not there, where a row has fewer finite scores than were asked for
NO_CHILD = -1


def check_count(count: int, vocab_size: int) -> None:
    """Raise ValueError where a node cannot have so many children."""
    if not 1 <= count <= min(MOST_CHILDREN, vocab_size):
        raise ValueError(
            f"{count} children per node were asked for; it can be 1 to"
            f" {min(MOST_CHILDREN, vocab_size)}"
        )


def top_children(
    scores_RV: Any, row_F: Any, *, tokens_FK: Any, best_FK: Any, log_norm_F: Any, how: How = "auto"
) -> None:
    """The K best tokens of each row given, best first; of equal scores the lower token.

    `scores_RV` (float32, float64, or bfloat16 on a device) are logits, or log q + noise; `row_F`
    (int32) are the rows of the frontier. Fills `tokens_FK` (int64), `best_FK` (float64, the scores
    themselves) and `log_norm_F` (float64, logsumexp of the row). A score of -inf is no child:
    `NO_CHILD`. Raises ValueError for a K out of range.
    """
    check_count(tokens_FK.shape[1], scores_RV.shape[1])
    out = (tokens_FK, best_FK, log_norm_F)
    if memory.use_kernel(how, scores_RV, row_F, *out):
        top_children_kernel[row_F.shape[0], memory.THREADS, memory.stream()](
            memory.is_bfloat16(scores_RV), *map(memory.on_device, (scores_RV, row_F, *out))
        )
        return
    top_children_twin(*map(memory.on_host, (scores_RV, row_F, *out)))


def best_nodes(
    path_score_BM: Any,
    num_B: Any,
    count_B: Any,
    *,
    kept_BN: Any,
    num_kept_B: Any,
    how: How = "auto",
) -> None:
    """Prune: the `count` nodes of best path score besides the root, in order of their numbers.

    Node 0 of M is the root and not listed. Of equal scores the earlier node stays, so that a parent
    is never dropped for its child. Fills `kept_BN` (int32, -1 behind) and `num_kept_B`.
    Raises ValueError where `kept_BN` is wider than kernels take.
    """
    if kept_BN.shape[1] > MOST_THREADS:
        raise ValueError(f"{kept_BN.shape[1]} nodes would stay; kernels keep up to {MOST_THREADS}")
    arrays = (path_score_BM, num_B, count_B, kept_BN, num_kept_B)
    if memory.use_kernel(how, *arrays):
        best_nodes_kernel[num_B.shape[0], memory.THREADS, memory.stream()](
            *map(memory.on_device, arrays)
        )
        return
    best_nodes_twin(*map(memory.on_host, arrays))


@cuda.jit(cache=True)
def top_children_kernel(
    bfloat: bool, scores_RV: Any, row_F: Any, tokens_FK: Any, best_FK: Any, log_norm_F: Any
) -> None:
    """Block f: frontier node f. One pass: every thread keeps the K best it saw, in local memory.

    Then K times the best of all threads' heads is taken.
    """
    floats = cuda.shared.array(MOST_THREADS, np.float64)
    ints = cuda.shared.array(MOST_THREADS, np.int64)
    own = cuda.local.array(MOST_CHILDREN, np.float64)
    token = cuda.local.array(MOST_CHILDREN, np.int64)
    tid, f = cuda.threadIdx.x, cuda.blockIdx.x
    row, vocab_size, count = row_F[f], scores_RV.shape[1], tokens_FK.shape[1]
    size, top, mass = 0, -math.inf, 0.0
    for v in range(tid, vocab_size, cuda.blockDim.x):
        score = widen(scores_RV[row, v], bfloat)
        if score == -math.inf:
            continue
        if score > top:
            mass = mass * math.exp(top - score) + 1.0
            top = score
        else:
            mass += math.exp(score - top)
        if size < count or score > own[size - 1]:
            if size < count:
                size += 1
            at = size - 1
            while at > 0 and score > own[at - 1]:
                own[at] = own[at - 1]
                token[at] = token[at - 1]
                at -= 1
            own[at] = score
            token[at] = v
    highest = block_max(top, floats)
    if top > -math.inf:
        mass *= math.exp(top - highest)
    mass = block_sum(mass, floats)
    if tid == 0:
        log_norm_F[f] = highest + math.log(mass) if mass > 0.0 else -math.inf
    head = 0
    for k in range(count):
        score, at = -math.inf, vocab_size
        if head < size:
            score, at = own[head], token[head]
        best = block_argmax(score, at, floats, ints)
        if head < size and at == best:
            head += 1
            tokens_FK[f, k] = at
            best_FK[f, k] = score
        elif best == vocab_size and tid == 0:
            tokens_FK[f, k] = NO_CHILD
            best_FK[f, k] = -math.inf


@cuda.jit(cache=True)
def best_nodes_kernel(
    path_score_BM: Any, num_B: Any, count_B: Any, kept_BN: Any, num_kept_B: Any
) -> None:
    """Block b: request b. A node's rank is the number of nodes before it; M^2 looks, side by side.

    Those that stay find their places the same way.
    """
    ints = cuda.shared.array(MOST_THREADS, np.int64)
    b, tid = cuda.blockIdx.x, cuda.threadIdx.x
    num = num_B[b]
    kept = min(count_B[b], num - 1)
    for node in range(1 + tid, num, cuda.blockDim.x):
        rank = better_than(path_score_BM, b, node, num)
        if rank < kept:
            ints[rank] = node
    cuda.syncthreads()
    for at in range(tid, kept_BN.shape[1], cuda.blockDim.x):
        if at >= kept:
            kept_BN[b, at] = -1
            continue
        place = 0
        for other in range(kept):
            if ints[other] < ints[at]:
                place += 1
        kept_BN[b, place] = ints[at]
    if tid == 0:
        num_kept_B[b] = kept


@cuda.jit(device=True)
def better_than(path_score_BM: Any, b: int, node: int, num: int) -> int:
    """How many nodes besides the root come before this one."""
    score, rank = path_score_BM[b, node], 0
    for other in range(1, num):
        theirs = path_score_BM[b, other]
        if theirs > score or (theirs == score and other < node):
            rank += 1
    return rank


@njit(cache=True, nogil=True)
def top_of_row(scores_V: np.ndarray, tokens_K: np.ndarray, best_K: np.ndarray) -> int:
    """Fill the best tokens of one row, best first; returns how many there are.

    Once K are known, a run of scores is looked at one by one only if any beats the last of them:
    asking that of a whole run compiles to vector instructions.
    """
    count, size, vocab_size = len(tokens_K), 0, len(scores_V)
    for start in range(0, vocab_size, RUN):
        stop = min(start + RUN, vocab_size)
        if size == count:
            least, hits = scores_V[tokens_K[count - 1]], 0
            for score in scores_V[start:stop]:
                hits += score > least
            if hits == 0:
                continue
        for v in range(start, stop):
            score = scores_V[v]
            if score == -np.inf or (size == count and not score > best_K[count - 1]):
                continue
            if size < count:
                size += 1
            at = size - 1
            while at > 0 and score > best_K[at - 1]:
                best_K[at] = best_K[at - 1]
                tokens_K[at] = tokens_K[at - 1]
                at -= 1
            best_K[at] = score
            tokens_K[at] = v
    return size


@njit(cache=True, nogil=True)
def top_children_twin(
    scores_RV: np.ndarray,
    row_F: np.ndarray,
    tokens_FK: np.ndarray,
    best_FK: np.ndarray,
    log_norm_F: np.ndarray,
) -> None:
    """As the kernel, a row at a time."""
    for f in range(len(row_F)):
        scores_V = scores_RV[row_F[f]]
        size = top_of_row(scores_V, tokens_FK[f], best_FK[f])
        tokens_FK[f, size:] = NO_CHILD
        best_FK[f, size:] = -np.inf
        top, mass = best_FK[f, 0], 0.0
        if size:
            for v in range(len(scores_V)):
                mass += exp_of(scores_V[v] - top)
        log_norm_F[f] = top + math.log(mass) if mass > 0.0 else -np.inf


@njit(cache=True, nogil=True)
def best_nodes_twin(
    path_score_BM: np.ndarray,
    num_B: np.ndarray,
    count_B: np.ndarray,
    kept_BN: np.ndarray,
    num_kept_B: np.ndarray,
) -> None:
    """As the kernel, by a stable sort."""
    for b in range(len(num_B)):
        kept = min(count_B[b], num_B[b] - 1)
        order = np.argsort(-path_score_BM[b, 1 : num_B[b]], kind="mergesort")[:kept] + 1
        kept_BN[b, kept:] = -1
        kept_BN[b, :kept] = np.sort(order)
        num_kept_B[b] = kept


def reference_top_children(
    scores_V: np.ndarray, count: int
) -> tuple[list[int], list[float], float]:
    """One row by sorting all of it: tokens, scores, logsumexp."""
    order = np.lexsort((np.arange(len(scores_V)), -scores_V))[:count]
    order = order[np.isfinite(scores_V[order])]
    log_norm = float(np.logaddexp.reduce(scores_V.astype(np.float64)))
    return order.tolist(), scores_V[order].astype(float).tolist(), log_norm


def reference_best_nodes(path_score_M: list[float], count: int) -> list[int]:
    """One tree by sorting: nodes that stay, in order of their numbers."""
    nodes = sorted(range(1, len(path_score_M)), key=lambda node: (-path_score_M[node], node))
    return sorted(nodes[:count])
