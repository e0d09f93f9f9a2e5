"""Acceptance by rules 2 and 3 (docs/methods.md): SAMPLED children, residuals over the vocabulary.

SpecInfer multi-step (2305.09781, algorithm 2) and Sequoia's without replacement (2402.12374,
algorithm 2). What they leave of p is worked out in float64, in scratch of a row per request.
"""

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
from cuda_ext.block import block_sum, widen
from cuda_ext.match import clear_verdict
from cuda_ext.rows import log_norm_of
from cuda_ext.vector import exps, positive_mass, sum_of


@cuda.jit(device=True)
def block_draw(b: int, law_BV: Any, uniform: float, floats: Any, ints: Any) -> int:
    """The token at quantile `uniform` of row b, never one of mass 0; of use in thread 0 alone.

    Every thread sums a run of tokens, thread 0 finds the run and then the token in it.
    """
    tid, vocab_size = cuda.threadIdx.x, law_BV.shape[1]
    run = (vocab_size + cuda.blockDim.x - 1) // cuda.blockDim.x
    total, last = 0.0, -1
    for v in range(tid * run, min((tid + 1) * run, vocab_size)):
        if law_BV[b, v] > 0.0:
            total += law_BV[b, v]
            last = v
    floats[tid] = total
    ints[tid] = last
    cuda.syncthreads()
    token = 0
    if tid == 0:
        mass = 0.0
        for other in range(cuda.blockDim.x):
            mass += floats[other]
            if ints[other] >= 0:
                token = ints[other]  # the last of any mass, should rounding leave nothing
        before, chosen = 0.0, -1
        for other in range(cuda.blockDim.x):
            if chosen < 0:
                if before + floats[other] > uniform * mass:
                    chosen = other
                else:
                    before += floats[other]
        if chosen >= 0:
            token = ints[chosen]
            for v in range(chosen * run, token + 1):
                before += law_BV[b, v]
                if before > uniform * mass:
                    token = v
                    break
    cuda.syncthreads()
    return token


@cuda.jit(device=True)
def walk_drawn(
    replacement: bool,
    scale: float,
    bfloat: bool,
    b: int,
    tokens_BN: Any,
    parents_BN: Any,
    num_nodes_B: Any,
    first_B: Any,
    logits_RV: Any,
    uniforms_BN2: Any,
    draft_RV: Any,
    draft_row_BN: Any,
    log_norm_BN: Any,
    residual_BV: Any,
    left_BV: Any,
    path_BN: Any,
    path_len_B: Any,
    next_token_B: Any,
    origin_B: Any,
    fate_BN: Any,
    accept_prob_BN: Any,
    floats: Any,
    ints: Any,
) -> None:
    """One block down one tree; all threads take every decision alike."""
    tid, step = cuda.threadIdx.x, cuda.blockDim.x
    vocab_size = logits_RV.shape[1]
    clear_verdict(b, path_BN, fate_BN, accept_prob_BN)
    node, depth = 0, 0
    while True:
        row = draft_row_BN[b, node]
        for v in range(tid, vocab_size, step):
            score = widen(logits_RV[first_B[b] + node, v], bfloat) * scale
            residual_BV[b, v] = math.exp(score - log_norm_BN[b, node])
            if row >= 0:
                left_BV[b, v] = draft_RV[row, v]
        cuda.syncthreads()
        accepted, tested, more = -1, False, True
        for child in range(node + 1, num_nodes_B[b]):
            if parents_BN[b, child] != node:
                continue
            tested = True
            if not more or accepted >= 0:
                continue
            token = tokens_BN[b, child]
            p, q = residual_BV[b, token], left_BV[b, token]
            chance = 1.0 if p >= q else p / q
            passes = uniforms_BN2[b, child, 0] < chance
            if tid == 0:
                accept_prob_BN[b, child] = chance
                fate_BN[b, child] = ACCEPTED if passes else REJECTED
            if passes:
                accepted = child
                continue
            mass = 0.0
            for v in range(tid, vocab_size, step):
                mass += max(residual_BV[b, v] - left_BV[b, v], 0.0)
            mass = block_sum(mass, floats)
            remaining = 0.0
            for v in range(tid, vocab_size, step):
                if mass > 0.0:
                    residual_BV[b, v] = max(residual_BV[b, v] - left_BV[b, v], 0.0) / mass
                if not replacement:
                    if v == token:
                        left_BV[b, v] = 0.0
                    remaining += left_BV[b, v]
            if not replacement:
                remaining = block_sum(remaining, floats)
                more = remaining > 0.0
                if more:
                    for v in range(tid, vocab_size, step):
                        left_BV[b, v] /= remaining
            cuda.syncthreads()
        if accepted < 0:
            token = block_draw(b, residual_BV, uniforms_BN2[b, node, 1], floats, ints)
            if tid == 0:
                path_len_B[b] = depth + 1
                next_token_B[b] = token
                origin_B[b] = CORRECTION if tested else BONUS
            break
        cuda.syncthreads()
        node = accepted
        depth += 1
        if tid == 0:
            path_BN[b, depth] = node
    cuda.syncthreads()


@njit(cache=True, nogil=True)
def draw(law_V: np.ndarray, uniform: float) -> int:
    """The token at quantile `uniform` in [0, 1); never one of mass 0."""
    mass = 0.0
    last = 0
    for v in range(len(law_V)):
        mass += law_V[v]
        if law_V[v] > 0.0:
            last = v
    before = 0.0
    for v in range(last):
        before += law_V[v]
        if before > uniform * mass:
            return v
    return last


@njit(cache=True, nogil=True)
def drawn_twin(
    replacement: bool,
    scale: float,
    tokens_BN: np.ndarray,
    parents_BN: np.ndarray,
    num_nodes_B: np.ndarray,
    first_B: np.ndarray,
    logits_RV: np.ndarray,
    uniforms_BN2: np.ndarray,
    draft_RV: np.ndarray,
    draft_row_BN: np.ndarray,
    residual_BV: np.ndarray,
    path_BN: np.ndarray,
    path_len_B: np.ndarray,
    next_token_B: np.ndarray,
    origin_B: np.ndarray,
    fate_BN: np.ndarray,
    accept_prob_BN: np.ndarray,
) -> None:
    """As the kernel. `residual_BV` ends as the law that the next token was drawn from."""
    vocab_size = logits_RV.shape[1]
    left_V = np.empty(vocab_size)
    for b in range(len(num_nodes_B)):
        path_BN[b], path_BN[b, 0] = -1, 0
        fate_BN[b], fate_BN[b, 0] = NOT_REACHED, ROOT
        accept_prob_BN[b] = np.nan
        residual_V = residual_BV[b]
        node, depth = 0, 0
        while True:
            logits_V = logits_RV[first_B[b] + node]
            log_norm = log_norm_of(scale, logits_V)
            exps(logits_V, scale, log_norm, residual_V)
            accepted, tested = -1, False
            for child in range(node + 1, num_nodes_B[b]):
                if parents_BN[b, child] != node:
                    continue
                if not tested:
                    tested = True
                    left_V[:] = draft_RV[draft_row_BN[b, node]]
                token = tokens_BN[b, child]
                p, q = residual_V[token], left_V[token]
                chance = 1.0 if p >= q else p / q
                accept_prob_BN[b, child] = chance
                if uniforms_BN2[b, child, 0] < chance:
                    accepted = child
                    fate_BN[b, child] = ACCEPTED
                    break
                fate_BN[b, child] = REJECTED
                mass = positive_mass(residual_V, left_V)
                if mass > 0.0:  # none left means p = q: the rejection had chance 0
                    for v in range(vocab_size):
                        residual_V[v] = max(residual_V[v] - left_V[v], 0.0) / mass
                if not replacement:
                    left_V[token] = 0.0
                    remaining = sum_of(left_V)
                    if remaining <= 0.0:  # nothing more could have been drawn
                        break
                    left_V /= remaining
            if accepted < 0:
                path_len_B[b] = depth + 1
                next_token_B[b] = draw(residual_V, uniforms_BN2[b, node, 1])
                origin_B[b] = CORRECTION if tested else BONUS
                break
            node = accepted
            depth += 1
            path_BN[b, depth] = node


def reference_drawn(
    tokens: list[int], parents: list[int], logits_NV: np.ndarray, draft_NV: np.ndarray,
    uniforms_N2: np.ndarray, *, scale: float, replacement: bool,
) -> tuple[Plain, np.ndarray]:  # fmt: skip
    """One tree in the plainest way: the verdict, and the law of the token after the path."""
    kids = children_of(parents)
    fate, prob = untested(len(tokens))
    path = [0]
    while True:
        node = path[-1]
        scores = logits_NV[node].astype(np.float64) * scale
        p_V = np.exp(scores - np.logaddexp.reduce(scores))
        q_V = draft_NV[node].copy()
        accepted = None
        for child in kids[node]:
            x = tokens[child]
            prob[child] = 1.0 if p_V[x] >= q_V[x] else float(p_V[x] / q_V[x])
            if uniforms_N2[child, 0] < prob[child]:
                fate[child], accepted = ACCEPTED, child
                break
            fate[child] = REJECTED
            rest_V = np.maximum(p_V - q_V, 0.0)
            p_V = rest_V / rest_V.sum() if rest_V.sum() > 0.0 else p_V
            if not replacement:
                q_V[x] = 0.0
                if q_V.sum() <= 0.0:
                    break
                q_V /= q_V.sum()
        if accepted is None:
            cumulative = np.cumsum(p_V)
            at = np.searchsorted(cumulative, uniforms_N2[node, 1] * cumulative[-1], side="right")
            token = min(int(at), int(np.flatnonzero(p_V)[-1]))
            origin = CORRECTION if kids[node] else BONUS
            return Plain(path, token, origin, fate, prob), p_V
        path.append(accepted)
