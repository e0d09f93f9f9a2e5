"""Inputs of a tree-attention pass: token ids, positions, cache rows and the additive mask."""

from __future__ import annotations

import numpy as np
from numba import njit

NEG_INF = np.float32(-np.inf)


@njit(cache=True, nogil=True)
def fill_tree_inputs(
    ids_BN: np.ndarray,  # out, int64
    positions_BN: np.ndarray,  # out, int64
    rows_BN: np.ndarray,  # out, int64: flat cache rows, slot * rows_per_slot + row
    mask_BNL: np.ndarray,  # out, float32: 0 where a node may look, -inf elsewhere
    windowed_BNL: np.ndarray,  # out, the same cut to `window`; size 0 where there is none
    tokens_BN: np.ndarray,  # int64, new nodes
    parents_BN: np.ndarray,  # int32, tree row of the parent, -1: hangs on the prefix
    num_new_B: np.ndarray,  # int32
    length_B: np.ndarray,  # int32, committed prefix rows
    count_B: np.ndarray,  # int32, tree rows already run
    depth_BT: np.ndarray,  # in/out, int32, depth of each tree row below the prefix
    ancestors_BTT: np.ndarray,  # in/out, uint8, 1 where row sees row
    rows_per_slot: int,
    window: int,
) -> None:
    """Fill the inputs of one pass over new tree nodes (reference: `reference_mask`).

    A node sees the prefix, its ancestors and itself; its position is prefix length + depth.
    Padding writes to the slot's spare last row and looks at row 0 alone, so that it is never NaN.
    """
    num_slots, num_nodes = ids_BN.shape
    num_cols = mask_BNL.shape[2]
    windowed = windowed_BNL.size > 0
    for b in range(num_slots):
        length = length_B[b]
        for i in range(num_nodes):
            for col in range(num_cols):
                mask_BNL[b, i, col] = NEG_INF
            if i >= num_new_B[b]:
                ids_BN[b, i] = 0
                positions_BN[b, i] = 0
                rows_BN[b, i] = b * rows_per_slot + rows_per_slot - 1
                mask_BNL[b, i, 0] = 0.0
                if windowed:
                    for col in range(num_cols):
                        windowed_BNL[b, i, col] = mask_BNL[b, i, col]
                continue
            row = count_B[b] + i
            parent = parents_BN[b, i]
            depth = 0
            if parent >= 0:
                depth = depth_BT[b, parent] + 1
                for other in range(row):
                    ancestors_BTT[b, row, other] = ancestors_BTT[b, parent, other]
            else:
                for other in range(row):
                    ancestors_BTT[b, row, other] = 0
            ancestors_BTT[b, row, row] = 1
            depth_BT[b, row] = depth
            ids_BN[b, i] = tokens_BN[b, i]
            positions_BN[b, i] = length + depth
            rows_BN[b, i] = b * rows_per_slot + length + row
            for col in range(length):
                mask_BNL[b, i, col] = 0.0
            for other in range(row + 1):
                if ancestors_BTT[b, row, other]:
                    mask_BNL[b, i, length + other] = 0.0
            if windowed:
                position = length + depth
                for col in range(num_cols):
                    windowed_BNL[b, i, col] = mask_BNL[b, i, col]
                for col in range(min(length, position - window + 1)):
                    windowed_BNL[b, i, col] = NEG_INF
                for other in range(row + 1):
                    if position - (length + depth_BT[b, other]) >= window:
                        windowed_BNL[b, i, length + other] = NEG_INF


def reference_mask(parents_N: list[int], prefix_length: int) -> np.ndarray:
    """The mask of one fresh tree in the plainest way: bool (N, prefix + N), True: may look."""
    num_nodes = len(parents_N)
    allowed = np.zeros((num_nodes, prefix_length + num_nodes), bool)
    allowed[:, :prefix_length] = True
    for node in range(num_nodes):
        at = node
        while at >= 0:
            allowed[node, prefix_length + at] = True
            at = parents_N[at]
    return allowed
