"""Acceptance by rule 1, sample and match (docs/methods.md), and greedy, its special case."""

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
from cuda_ext.rows import log_norm_of, own_token


@cuda.jit(device=True)
def clear_verdict(b: int, path_BN: Any, fate_BN: Any, accept_prob_BN: Any) -> None:
    """Nothing is accepted or tested yet. Ends with a barrier."""
    for node in range(cuda.threadIdx.x, path_BN.shape[1], cuda.blockDim.x):
        path_BN[b, node] = -1 if node else 0
        fate_BN[b, node] = NOT_REACHED if node else ROOT
        accept_prob_BN[b, node] = math.nan
    cuda.syncthreads()


@cuda.jit(device=True)
def walk_match(
    greedy: bool,
    scale: float,
    bfloat: bool,
    b: int,
    tokens_BN: Any,
    parents_BN: Any,
    num_nodes_B: Any,
    first_B: Any,
    logits_RV: Any,
    choice_BN: Any,
    log_norm_BN: Any,
    path_BN: Any,
    path_len_B: Any,
    next_token_B: Any,
    origin_B: Any,
    fate_BN: Any,
    accept_prob_BN: Any,
    ints: Any,
) -> None:
    """One block: down the tree along the target's own tokens. Children are tested side by side."""
    tid = cuda.threadIdx.x
    clear_verdict(b, path_BN, fate_BN, accept_prob_BN)
    node, depth = 0, 0
    while True:
        if tid == 0:
            ints[0] = -1  # the child that is accepted
            ints[1] = 0  # whether there are children
        cuda.syncthreads()
        token = choice_BN[b, node]
        for child in range(node + 1 + tid, num_nodes_B[b], cuda.blockDim.x):
            if parents_BN[b, child] == node:
                ints[1] = 1
                own = tokens_BN[b, child]
                if greedy:
                    accept_prob_BN[b, child] = 1.0 if own == token else 0.0
                else:
                    score = widen(logits_RV[first_B[b] + node, own], bfloat) * scale
                    accept_prob_BN[b, child] = math.exp(score - log_norm_BN[b, node])
                if own == token:
                    fate_BN[b, child] = ACCEPTED
                    cuda.atomic.max(ints, 0, child)
                else:
                    fate_BN[b, child] = REJECTED
        cuda.syncthreads()
        accepted, tested = ints[0], ints[1]
        cuda.syncthreads()
        if accepted < 0:
            if tid == 0:
                path_len_B[b] = depth + 1
                next_token_B[b] = token
                origin_B[b] = CORRECTION if tested else BONUS
            break
        node = accepted
        depth += 1
        if tid == 0:
            path_BN[b, depth] = node
    cuda.syncthreads()


@njit(cache=True, nogil=True)
def match_twin(
    greedy: bool,
    scale: float,
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
    """As the kernels, but the vocabulary is read only for nodes on the path."""
    for b in range(len(num_nodes_B)):
        path_BN[b], path_BN[b, 0] = -1, 0
        fate_BN[b], fate_BN[b, 0] = NOT_REACHED, ROOT
        accept_prob_BN[b] = np.nan
        node, depth = 0, 0
        while True:
            logits_V = logits_RV[first_B[b] + node]
            if greedy:
                token = own_token(scale, logits_V, noise_RV.ravel(), False)
            else:
                token = own_token(scale, logits_V, noise_RV[noise_row_BN[b, node]], True)
            accepted, log_norm, tested = -1, 0.0, False
            for child in range(node + 1, num_nodes_B[b]):
                if parents_BN[b, child] != node:
                    continue
                own = tokens_BN[b, child]
                if greedy:
                    accept_prob_BN[b, child] = 1.0 if own == token else 0.0
                else:
                    if not tested:
                        log_norm = log_norm_of(scale, logits_V)
                    accept_prob_BN[b, child] = math.exp(logits_V[own] * scale - log_norm)
                tested = True
                if own == token:
                    accepted = child
                    fate_BN[b, child] = ACCEPTED
                else:
                    fate_BN[b, child] = REJECTED
            if accepted < 0:
                path_len_B[b] = depth + 1
                next_token_B[b] = token
                origin_B[b] = CORRECTION if tested else BONUS
                break
            node = accepted
            depth += 1
            path_BN[b, depth] = node


def reference_match(
    tokens: list[int], parents: list[int], logits_NV: np.ndarray, noise_NV: np.ndarray | None,
    *, scale: float,
) -> Plain:  # fmt: skip
    """One tree in the plainest way; without noise greedily."""
    kids = children_of(parents)
    fate, prob = untested(len(tokens))
    path = [0]
    while True:
        node = path[-1]
        scores = logits_NV[node].astype(np.float64) * scale
        token = int(np.argmax(scores if noise_NV is None else scores + noise_NV[node]))
        p_V = np.exp(scores - np.logaddexp.reduce(scores))
        accepted = None
        for child in kids[node]:
            same = tokens[child] == token
            prob[child] = float(same) if noise_NV is None else float(p_V[tokens[child]])
            fate[child] = ACCEPTED if same else REJECTED
            accepted = child if same else accepted
        if accepted is None:
            return Plain(path, token, CORRECTION if kids[node] else BONUS, fate, prob)
        path.append(accepted)
