"""Inputs of a tree-attention pass: token ids, positions, cache rows and the additive mask."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda, njit

from cuda_ext import memory
from cuda_ext.memory import How

NEG_INF = np.float32(-np.inf)


class Inputs(NamedTuple):
    """What a pass reads: B slots, N new nodes of each, L columns of the cache."""

    ids_BN: Any  # int64
    positions_BN: Any  # int64
    rows_BN: Any  # int64: flat cache rows, slot * rows_per_slot + row
    mask_BNL: Any  # float32: 0 where a node may look, -inf elsewhere
    windowed_BNL: Any  # the same cut to a window; of size 0 where there is none


class NewNodes(NamedTuple):
    """New nodes of each slot; places behind their number are padding."""

    tokens_BN: Any  # int64
    parents_BN: Any  # int32, tree row of the parent, -1: hangs on the prefix
    num_new_B: Any  # int32


class SlotState(NamedTuple):
    """What a slot holds: T tree rows at most."""

    length_B: Any  # int32, committed prefix rows
    count_B: Any  # int32, tree rows already run
    depth_BT: Any  # in/out, int32, depth of each tree row below the prefix
    ancestors_BTT: Any  # in/out, uint8, 1 where row sees row; zeros to begin with


def tree_inputs(
    inputs: Inputs,
    nodes: NewNodes,
    slots: SlotState,
    *,
    rows_per_slot: int,
    window: int = 0,
    how: How = "auto",
) -> None:
    """Fill `inputs` for one pass over new nodes, and note depths and ancestors in `slots`.

    A node sees the prefix, its ancestors and itself; its position is prefix length + depth. Padding
    writes to the slot's spare last row and looks at row 0 alone, so that it is never NaN.
    """
    arrays = (*inputs, *nodes, *slots)
    if not memory.use_kernel(how, *arrays):
        given: list[Any] = [*map(memory.on_host, arrays), rows_per_slot, window]
        fill_tree_inputs(*given)
        return
    num_slots, num_nodes = inputs.ids_BN.shape
    tree_inputs_kernel[(num_nodes, num_slots), memory.THREADS, memory.stream()](
        *map(memory.on_device, arrays), rows_per_slot, window
    )


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


@cuda.jit(cache=True)
def tree_inputs_kernel(
    ids_BN: Any, positions_BN: Any, rows_BN: Any, mask_BNL: Any, windowed_BNL: Any,
    tokens_BN: Any, parents_BN: Any, num_new_B: Any,
    length_B: Any, count_B: Any, depth_BT: Any, ancestors_BTT: Any,
    rows_per_slot: int, window: int,
) -> None:  # fmt: skip
    """Block (i, b): new node i of slot b, which climbs to its ancestors by itself.

    Of rows that ran before it reads what is known; of rows that are new with it, parents alone, so
    no block waits for another.
    """
    i, b, tid, step = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, cuda.blockDim.x
    num_cols, windowed = mask_BNL.shape[2], windowed_BNL.size > 0
    if i >= num_new_B[b]:
        for col in range(tid, num_cols, step):
            mask_BNL[b, i, col] = 0.0 if col == 0 else -np.inf
            if windowed:
                windowed_BNL[b, i, col] = 0.0 if col == 0 else -np.inf
        if tid == 0:
            ids_BN[b, i] = 0
            positions_BN[b, i] = 0
            rows_BN[b, i] = b * rows_per_slot + rows_per_slot - 1
        return
    length, count = length_B[b], count_B[b]
    row = count + i
    above, depth = parents_BN[b, i], 0
    while above >= count:  # every thread climbs: the parents of one tree sit in a cache line or two
        above = parents_BN[b, above - count]
        depth += 1
    if above >= 0:
        depth += depth_BT[b, above] + 1
    for other in range(tid, row + 1, step):
        seen = 0
        if above >= 0 and other < count:
            seen = ancestors_BTT[b, above, other]
        ancestors_BTT[b, row, other] = seen
    cuda.syncthreads()
    if tid == 0:
        at = row
        while at >= count:
            ancestors_BTT[b, row, at] = 1
            at = parents_BN[b, at - count]
        depth_BT[b, row] = depth
        ids_BN[b, i] = tokens_BN[b, i]
        positions_BN[b, i] = length + depth
        rows_BN[b, i] = b * rows_per_slot + length + row
    cuda.syncthreads()
    for col in range(tid, num_cols, step):
        other = col - length
        looks = other < 0 or (other <= row and ancestors_BTT[b, row, other] > 0)
        mask_BNL[b, i, col] = 0.0 if looks else -np.inf
        if windowed:
            position = col
            if looks and other >= 0:
                position = length + depth_above(b, row, other, count, parents_BN, depth_BT)
            near = length + depth - position < window
            windowed_BNL[b, i, col] = 0.0 if looks and near else -np.inf


@cuda.jit(device=True)
def depth_above(b: int, row: int, ancestor: int, count: int, parents_BN: Any, depth_BT: Any) -> int:
    """Depth of an ancestor of `row`; that of a new one is another block's to write, so count."""
    if ancestor < count:
        return depth_BT[b, ancestor]
    at, depth = ancestor, 0
    while at >= count:
        at = parents_BN[b, at - count]
        if at >= count:
            depth += 1
    if at >= 0:
        return depth + depth_BT[b, at] + 1
    return depth


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


def reference_tree_inputs(
    tokens_T: list[int], parents_T: list[int], *, prefix: int, slot: int, rows_per_slot: int,
    window: int, cols: int,
) -> tuple[list[int], list[int], list[int], np.ndarray, np.ndarray]:  # fmt: skip
    """All rows of one slot's tree in the plainest way: ids, positions, rows, mask, windowed."""
    total = len(tokens_T)
    depth = [0] * total
    for node, parent in enumerate(parents_T):
        depth[node] = depth[parent] + 1 if parent >= 0 else 0
    looks = np.zeros((total, cols), bool)
    looks[:, : prefix + total] = reference_mask(parents_T, prefix)
    position_L = np.arange(cols)
    position_L[prefix : prefix + total] = prefix + np.asarray(depth)
    near = (prefix + np.asarray(depth))[:, None] - position_L[None] < window
    additive = [np.where(see, np.float32(0), NEG_INF) for see in (looks, looks & near)]
    rows = [slot * rows_per_slot + prefix + node for node in range(total)]
    return tokens_T, [prefix + d for d in depth], rows, additive[0], additive[1]
