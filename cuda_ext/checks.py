"""What is refused before a launch: a kernel that reads out of bounds names nobody."""

from __future__ import annotations

import numpy as np

from cuda_ext.arrays import Draws
from cuda_ext.block import MOST_THREADS

#: most nodes of a tree: shared memory has a place for each
MOST_NODES = MOST_THREADS


def check_trees(
    tokens_BN: np.ndarray,
    parents_BN: np.ndarray,
    num_nodes_B: np.ndarray,
    *,
    vocab_size: int,
    first_B: np.ndarray | None = None,
    num_rows: int | None = None,
) -> None:
    """Raise ValueError, naming the request, node and value, for trees that no kernel may see.

    All arrays are in host memory. `num_rows` is the number of rows of logits.
    """
    if tokens_BN.shape != parents_BN.shape or tokens_BN.ndim != 2:
        raise ValueError(
            f"tokens are {tokens_BN.shape} and parents {parents_BN.shape}: both must be (B, N)"
        )
    num_requests, width = tokens_BN.shape
    if num_nodes_B.shape != (num_requests,):
        raise ValueError(f"node counts are {num_nodes_B.shape}; one per tree: ({num_requests},)")
    if width > MOST_NODES:
        raise ValueError(f"trees have room for {width} nodes; kernels take up to {MOST_NODES}")
    if vocab_size < 1:
        raise ValueError(f"the vocabulary has {vocab_size} tokens; it needs at least 1")
    _refuse((num_nodes_B < 1) | (num_nodes_B > width), num_nodes_B, f"nodes; it takes 1 to {width}")
    node_N = np.arange(width)
    real_BN = node_N < num_nodes_B[:, None]
    least_N = np.where(node_N == 0, -1, 0)
    out_of_order = (parents_BN < least_N) | (parents_BN >= np.maximum(node_N, 0))
    _refuse_node(
        real_BN & out_of_order, parents_BN, "parent", "a parent stands before its children"
    )
    _refuse_node(
        real_BN & ((tokens_BN < 0) | (tokens_BN >= vocab_size)),
        tokens_BN,
        "token",
        f"the vocabulary ends at {vocab_size}",
    )
    if first_B is not None and num_rows is not None:
        outside = (first_B < 0) | (first_B + num_nodes_B > num_rows)
        _refuse(outside, first_B, f"as its first row of logits, and there are {num_rows}")


def check_draws(draws: Draws, num_nodes_B: np.ndarray, *, uniforms: bool, noise: bool) -> None:
    """Raise ValueError for randomness that is not what a rule takes. Host memory."""
    real_BN = np.arange(draws.uniforms_BN2.shape[1]) < num_nodes_B[:, None]
    if uniforms:
        real = draws.uniforms_BN2[real_BN]
        if not ((real >= 0.0) & (real < 1.0)).all():  # NaN too
            raise ValueError("a uniform is not in [0, 1)")
        rows = draws.draft_row_BN[real_BN]
        if ((rows < -1) | (rows >= len(draws.draft_RV))).any():
            raise ValueError(f"a node names a draft law beyond the {len(draws.draft_RV)} given")
    if noise:
        rows = draws.noise_row_BN[real_BN]
        if ((rows < 0) | (rows >= len(draws.noise_RV))).any():
            raise ValueError(f"a node names a row of noise beyond the {len(draws.noise_RV)} given")


def check_scale(scale: float) -> None:
    """Raise ValueError unless logits can be multiplied by it."""
    if not (np.isfinite(scale) and scale > 0.0):
        raise ValueError(f"logits are scaled by 1 / temperature = {scale}; it must be positive")


def _refuse(wrong_B: np.ndarray, values_B: np.ndarray, what: str) -> None:
    if wrong_B.any():
        b = int(np.argmax(wrong_B))
        raise ValueError(f"tree {b} has {int(values_B[b])} {what}")


def _refuse_node(wrong_BN: np.ndarray, values_BN: np.ndarray, what: str, rule: str) -> None:
    if wrong_BN.any():
        b, node = (int(at) for at in np.argwhere(wrong_BN)[0])
        raise ValueError(
            f"node {node} of tree {b} has the {what} {int(values_BN[b, node])}; {rule}"
        )
