"""Typical acceptance (Medusa, 2401.10774, section 2.3.1). LOSSY: the law is another one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda, njit

from cuda_ext.arrays import (
    ACCEPTED,
    BONUS,
    CORRECTION,
    NOT_REACHED,
    REJECTED,
    ROOT,
    Plain,
    children_of,
    untested,
)
from cuda_ext.block import widen
from cuda_ext.match import clear_verdict
from cuda_ext.rows import norm_and_negentropy, own_token


@cuda.jit(device=True)
def walk_typical(
    scale: float,
    epsilon: float,
    alpha: float,
    bfloat: bool,
    b: int,
    tokens_BN: Any,
    parents_BN: Any,
    num_nodes_B: Any,
    first_B: Any,
    logits_RV: Any,
    choice_BN: Any,
    log_norm_BN: Any,
    negentropy_BN: Any,
    path_BN: Any,
    path_len_B: Any,
    next_token_B: Any,
    origin_B: Any,
    fate_BN: Any,
    accept_prob_BN: Any,
    floats: Any,
    ints: Any,
) -> None:
    """One block: level by level, every node whose parent passed is tested by a thread of its own.

    `ints` has the depth of nodes that passed (-1: not), `floats` the log p of their paths; both
    have a place per node.
    """
    tid, num_nodes = cuda.threadIdx.x, num_nodes_B[b]
    clear_verdict(b, path_BN, fate_BN, accept_prob_BN)
    for node in range(tid, num_nodes, cuda.blockDim.x):
        ints[node] = -1 if node else 0
        floats[node] = 0.0
    cuda.syncthreads()
    for level in range(num_nodes):
        for child in range(1 + tid, num_nodes, cuda.blockDim.x):
            node = parents_BN[b, child]
            if ints[node] != level or ints[child] >= 0:
                continue
            least = min(epsilon, alpha * math.exp(negentropy_BN[b, node]))
            score = widen(logits_RV[first_B[b] + node, tokens_BN[b, child]], bfloat) * scale
            log_p = score - log_norm_BN[b, node]
            if math.exp(log_p) > least:
                accept_prob_BN[b, child] = 1.0
                floats[child] = floats[node] + log_p
                ints[child] = level + 1
            else:
                accept_prob_BN[b, child] = 0.0
                fate_BN[b, child] = REJECTED
        cuda.syncthreads()
        more = False
        for node in range(num_nodes):
            if ints[node] == level + 1:
                more = True
        cuda.syncthreads()
        if not more:
            break
    if tid == 0:
        best = 0
        for node in range(1, num_nodes):
            if ints[node] > ints[best] or (
                ints[node] == ints[best] and floats[node] > floats[best]
            ):
                best = node
        origin_B[b] = BONUS
        for child in range(best + 1, num_nodes):
            if parents_BN[b, child] == best:
                origin_B[b] = CORRECTION
        next_token_B[b] = choice_BN[b, best]
        path_len_B[b] = ints[best] + 1
        while best > 0:
            path_BN[b, ints[best]] = best
            fate_BN[b, best] = ACCEPTED
            best = parents_BN[b, best]
    cuda.syncthreads()


@njit(cache=True, nogil=True)
def typical_twin(
    scale: float,
    epsilon: float,
    alpha: float,
    tokens_BN: np.ndarray,
    parents_BN: np.ndarray,
    num_nodes_B: np.ndarray,
    first_B: np.ndarray,
    logits_RV: np.ndarray,
    noise_RV: np.ndarray,
    noise_row_BN: np.ndarray,
    path_BN: np.ndarray,
    path_len_B: np.ndarray,
    next_token_B: np.ndarray,
    origin_B: np.ndarray,
    fate_BN: np.ndarray,
    accept_prob_BN: np.ndarray,
) -> None:
    """As the kernel; the vocabulary is read only for nodes whose path passed."""
    depth_N = np.empty(tokens_BN.shape[1], np.int64)
    score_N = np.empty(tokens_BN.shape[1])
    for b in range(len(num_nodes_B)):
        num_nodes = num_nodes_B[b]
        path_BN[b], path_BN[b, 0] = -1, 0
        fate_BN[b], fate_BN[b, 0] = NOT_REACHED, ROOT
        accept_prob_BN[b] = np.nan
        depth_N[:], score_N[:] = -1, 0.0
        depth_N[0] = 0
        best, tested = 0, False
        for node in range(num_nodes):
            if depth_N[node] < 0:
                continue
            logits_V = logits_RV[first_B[b] + node]
            log_norm, least, has_children = 0.0, 0.0, False
            for child in range(node + 1, num_nodes):
                if parents_BN[b, child] != node:
                    continue
                if not has_children:
                    has_children = True
                    log_norm, negentropy = norm_and_negentropy(scale, logits_V)
                    least = min(epsilon, alpha * math.exp(negentropy))
                log_p = logits_V[tokens_BN[b, child]] * scale - log_norm
                if math.exp(log_p) > least:
                    accept_prob_BN[b, child] = 1.0
                    depth_N[child] = depth_N[node] + 1
                    score_N[child] = score_N[node] + log_p
                else:
                    accept_prob_BN[b, child] = 0.0
                    fate_BN[b, child] = REJECTED
            if depth_N[node] > depth_N[best] or (
                depth_N[node] == depth_N[best] and score_N[node] > score_N[best]
            ):
                best = node
                tested = has_children
            elif node == 0:
                tested = has_children
        origin_B[b] = CORRECTION if tested else BONUS
        next_token_B[b] = own_token(
            scale, logits_RV[first_B[b] + best], noise_RV[noise_row_BN[b, best]], True
        )
        path_len_B[b] = depth_N[best] + 1
        while best > 0:
            path_BN[b, depth_N[best]] = best
            fate_BN[b, best] = ACCEPTED
            best = parents_BN[b, best]


def reference_typical(
    tokens: list[int], parents: list[int], logits_NV: np.ndarray, noise_NV: np.ndarray,
    *, scale: float, epsilon: float, alpha: float,
) -> Plain:  # fmt: skip
    """One tree in the plainest way."""
    kids = children_of(parents)
    fate, prob = untested(len(tokens))
    log_p_NV = logits_NV.astype(np.float64) * scale
    log_p_NV = log_p_NV - np.logaddexp.reduce(log_p_NV, axis=1)[:, None]
    passed = {0: (0, 0.0, 0)}
    for node, own in enumerate(kids):
        if node not in passed:
            continue
        some = log_p_NV[node][np.exp(log_p_NV[node]) > 0.0]
        least = min(epsilon, alpha * float(np.exp((np.exp(some) * some).sum())))
        for child in own:
            log_p = float(log_p_NV[node, tokens[child]])
            prob[child] = float(math.exp(log_p) > least)
            if prob[child]:
                depth, score, _ = passed[node]
                passed[child] = (depth + 1, score + log_p, -child)
            else:
                fate[child] = REJECTED
    best = max(passed, key=lambda node: passed[node])
    path = [best]
    while path[0]:
        fate[path[0]] = ACCEPTED
        path.insert(0, parents[path[0]])
    token = int(np.argmax(logits_NV[best].astype(np.float64) * scale + noise_NV[best]))
    return Plain(path, token, CORRECTION if kids[best] else BONUS, fate, prob)
