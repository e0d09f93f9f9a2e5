"""Arrays that acceptance reads and writes, for a batch of trees in an envelope of N nodes.

Letters as in docs/architecture.md: B requests, N nodes, V vocabulary; R rows of a table that nodes
refer to by number, so that trees may be padded or packed and nodes may share a row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

#: rules by number, as kernels take them
GREEDY, MATCH, TYPICAL, MULTI_STEP, WITHOUT_REPLACEMENT = range(5)
RULES = {
    "greedy": GREEDY,
    "match": MATCH,
    "typical": TYPICAL,
    "multi-step": MULTI_STEP,
    "without-replacement": WITHOUT_REPLACEMENT,
}
#: fates of nodes and origins of tokens, the numbers of engine/records.py
ROOT, ACCEPTED, REJECTED, NOT_REACHED = 0, 1, 2, 3
BONUS, CORRECTION = 2, 3


class Trees(NamedTuple):
    """What was drafted. Places of a request's row behind its own nodes are padding."""

    tokens_BN: Any  # int64
    parents_BN: Any  # int32, parent before child, -1 at the root, which is node 0
    num_nodes_B: Any  # int32, root included
    first_B: Any  # int32, node n has its logits in row first + n


class Draws(NamedTuple):
    """Randomness and drafts, as far as the rule asks for them; else arrays of no rows."""

    noise_RV: Any  # float64, Gumbel noise of a position: match, typical
    noise_row_BN: Any  # int32, its row by node
    uniforms_BN2: Any  # float64 in [0, 1): for accepting a node, for the token after it
    draft_RV: Any  # float64, q that the children of a node were drawn from
    draft_row_BN: Any  # int32, its row by node, -1: nothing was drawn there


class Verdicts(NamedTuple):
    """What acceptance writes."""

    path_BN: Any  # int32, accepted nodes with the root first; -1 behind them
    path_len_B: Any  # int32, at least 1
    next_token_B: Any  # int64, bonus or correction
    origin_B: Any  # int32
    fate_BN: Any  # uint8
    accept_prob_BN: Any  # float32, NaN where a node was not tested


class RowStats(NamedTuple):
    """What the target does after each node."""

    choice_BN: Any  # int64, its own token: argmax of scaled logits + noise
    log_norm_BN: Any  # float64, logsumexp of the scaled logits
    negentropy_BN: Any  # float64, sum of p log p


def no_draws(num_requests: int, num_nodes: int) -> Draws:
    """Draws of a rule that asks for none."""
    return Draws(
        np.zeros((0, 0)),
        np.full((num_requests, num_nodes), -1, np.int32),
        np.zeros((num_requests, num_nodes, 2)),
        np.zeros((0, 0)),
        np.full((num_requests, num_nodes), -1, np.int32),
    )


def new_verdicts(num_requests: int, num_nodes: int) -> Verdicts:
    """Host memory for verdicts."""
    shape = (num_requests, num_nodes)
    return Verdicts(
        np.empty(shape, np.int32),
        np.empty(num_requests, np.int32),
        np.empty(num_requests, np.int64),
        np.empty(num_requests, np.int32),
        np.empty(shape, np.uint8),
        np.empty(shape, np.float32),
    )


def new_stats(num_requests: int, num_nodes: int) -> RowStats:
    """Host memory for row statistics."""
    shape = (num_requests, num_nodes)
    return RowStats(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape))


class Plain(NamedTuple):
    """A verdict on one tree in plain Python, as the references give it."""

    path: list[int]
    next_token: int
    origin: int
    fate: list[int]
    accept_prob: list[float]


def children_of(parents: list[int]) -> list[list[int]]:
    """For each node, its children in order."""
    kids: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents[1:], start=1):
        kids[parent].append(node)
    return kids


def untested(num_nodes: int) -> tuple[list[int], list[float]]:
    """Fates and acceptance chances of a tree that nobody has looked at."""
    return [ROOT] + [NOT_REACHED] * (num_nodes - 1), [math.nan] * num_nodes
