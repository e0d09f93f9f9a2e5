"""Acceptance for a batch of trees: which path survives, and the token after it.

Every rule of docs/methods.md that judges node by node, and greedy. `step.py` does the same and
moves the accepted cache rows in one launch; here are the parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from cuda_ext import memory
from cuda_ext.arrays import (
    GREEDY,
    MATCH,
    MULTI_STEP,
    TYPICAL,
    WITHOUT_REPLACEMENT,
    Draws,
    RowStats,
    Trees,
    Verdicts,
)
from cuda_ext.block import MOST_THREADS
from cuda_ext.checks import check_scale
from cuda_ext.drawn import drawn_twin, walk_drawn
from cuda_ext.match import match_twin, walk_match
from cuda_ext.memory import How
from cuda_ext.rows import row_stats
from cuda_ext.typical import typical_twin, walk_typical


class Settings(NamedTuple):
    """The rule and its numbers."""

    rule: int = GREEDY
    scale: float = 1.0  # 1 / temperature; logits may be log-probabilities that were cut before
    epsilon: float = 0.09  # typical's thresholds
    alpha: float = 0.3


class Scratch(NamedTuple):
    """Laws that rules 2 and 3 work on, float64; of no columns under other rules."""

    residual_BV: Any  # ends as the law of the token after the path
    left_BV: Any  # what is left of q; the twin has its own


def new_scratch(settings: Settings, num_requests: int, vocab_size: int) -> Scratch:
    """Host memory for what the rule needs."""
    drawn = settings.rule in (MULTI_STEP, WITHOUT_REPLACEMENT)
    shape = (num_requests, vocab_size if drawn else 0)
    return Scratch(np.zeros(shape), np.zeros(shape))


def accept(
    settings: Settings,
    trees: Trees,
    logits_RV: Any,
    *,
    draws: Draws,
    stats: RowStats,
    scratch: Scratch,
    out: Verdicts,
    how: How = "auto",
) -> None:
    """Judge every tree; fill `out`. Trees must have passed `check_trees`.

    Kernels fill `stats` in a launch of their own; the twins read only rows on a path and leave it.
    Raises ValueError for a scale that is not positive.
    """
    check_scale(settings.scale)
    if not memory.use_kernel(how, *trees, logits_RV, *draws, *out):
        _accept_on_host(settings, trees, logits_RV, draws, scratch, out)
        return
    bfloat = memory.is_bfloat16(logits_RV)
    trees, stats = Trees(*map(memory.on_device, trees)), RowStats(*map(memory.on_device, stats))
    draws = Draws(*map(memory.on_device, draws))
    laws = map(memory.on_device, scratch)
    filled = map(memory.on_device, out)
    logits = memory.on_device(logits_RV)
    row_stats(
        settings.rule, trees, logits, scale=settings.scale, draws=draws, out=stats, how="kernel"
    )
    accept_kernel[trees.tokens_BN.shape[0], memory.THREADS, memory.stream()](
        *settings, bfloat, *trees, logits, *stats,
        draws.uniforms_BN2, draws.draft_RV, draws.draft_row_BN, *laws, *filled,
    )  # fmt: skip


def _accept_on_host(
    settings: Settings, trees: Trees, logits_RV: Any, draws: Draws, scratch: Scratch, out: Verdicts
) -> None:
    rule, scale, epsilon, alpha = settings
    given = [memory.on_host(a) for a in (*trees, logits_RV)]
    noise = [memory.on_host(a) for a in (draws.noise_RV, draws.noise_row_BN)]
    filled = [memory.on_host(a) for a in out]
    if rule in (GREEDY, MATCH):
        match_twin(rule == GREEDY, scale, *given, *noise, *filled)
    elif rule == TYPICAL:
        typical_twin(scale, epsilon, alpha, *given, *noise, *filled)
    else:
        laws = [
            memory.on_host(a)
            for a in (draws.uniforms_BN2, draws.draft_RV, draws.draft_row_BN, scratch.residual_BV)
        ]
        drawn_twin(rule == MULTI_STEP, scale, *given, *laws, *filled)


@cuda.jit(device=True)
def walk(
    rule: int, scale: float, epsilon: float, alpha: float, bfloat: bool, b: int,
    tokens_BN: Any, parents_BN: Any, num_nodes_B: Any, first_B: Any, logits_RV: Any,
    choice_BN: Any, log_norm_BN: Any, negentropy_BN: Any,
    uniforms_BN2: Any, draft_RV: Any, draft_row_BN: Any, residual_BV: Any, left_BV: Any,
    path_BN: Any, path_len_B: Any, next_token_B: Any, origin_B: Any, fate_BN: Any,
    accept_prob_BN: Any, floats: Any, ints: Any,
) -> None:  # fmt: skip
    """One block: the verdict on request b, what is said of its rows being known."""
    if rule in (GREEDY, MATCH):
        walk_match(
            rule == GREEDY, scale, bfloat, b, tokens_BN, parents_BN, num_nodes_B, first_B,
            logits_RV, choice_BN, log_norm_BN, path_BN, path_len_B, next_token_B, origin_B,
            fate_BN, accept_prob_BN, ints,
        )  # fmt: skip
    elif rule == TYPICAL:
        walk_typical(
            scale, epsilon, alpha, bfloat, b, tokens_BN, parents_BN, num_nodes_B, first_B,
            logits_RV, choice_BN, log_norm_BN, negentropy_BN, path_BN, path_len_B, next_token_B,
            origin_B, fate_BN, accept_prob_BN, floats, ints,
        )  # fmt: skip
    else:
        walk_drawn(
            rule == MULTI_STEP, scale, bfloat, b, tokens_BN, parents_BN, num_nodes_B, first_B,
            logits_RV, uniforms_BN2, draft_RV, draft_row_BN, log_norm_BN, residual_BV, left_BV,
            path_BN, path_len_B, next_token_B, origin_B, fate_BN, accept_prob_BN, floats, ints,
        )  # fmt: skip


@cuda.jit(cache=True)
def accept_kernel(
    rule: int, scale: float, epsilon: float, alpha: float, bfloat: bool,
    tokens_BN: Any, parents_BN: Any, num_nodes_B: Any, first_B: Any, logits_RV: Any,
    choice_BN: Any, log_norm_BN: Any, negentropy_BN: Any,
    uniforms_BN2: Any, draft_RV: Any, draft_row_BN: Any, residual_BV: Any, left_BV: Any,
    path_BN: Any, path_len_B: Any, next_token_B: Any, origin_B: Any, fate_BN: Any,
    accept_prob_BN: Any,
) -> None:  # fmt: skip
    """Block b: request b."""
    floats = cuda.shared.array(MOST_THREADS, np.float64)
    ints = cuda.shared.array(MOST_THREADS, np.int64)
    walk(
        rule, scale, epsilon, alpha, bfloat, cuda.blockIdx.x, tokens_BN, parents_BN, num_nodes_B,
        first_B, logits_RV, choice_BN, log_norm_BN, negentropy_BN, uniforms_BN2, draft_RV,
        draft_row_BN, residual_BV, left_BV, path_BN, path_len_B, next_token_B, origin_B, fate_BN,
        accept_prob_BN, floats, ints,
    )  # fmt: skip
