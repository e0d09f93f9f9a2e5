"""Inputs of a tree pass: made on the host and copied, as the engine does, or by the mask kernel.

The host fills ids, positions, cache rows and mask, and copies each. The kernel is told the tokens,
the parents and what the slots hold in one copy out of pinned memory, fills the same arrays on the
device, and its mask is cast to the model's dtype there. Wall time until the device has them: the
kernel's many arguments cost the host what its few bytes save (benchmarks/kernel_times.py has the
kernel's time on the device alone).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from cuda_ext.mask import Inputs, NewNodes, SlotState, fill_tree_inputs, tree_inputs
from cuda_ext.memory import How
from engine.device_buffers import Layout, Packed


class Case(NamedTuple):
    """A pass over N new nodes of each of B slots, all behind a prefix of the same length."""

    num_trees: int
    num_nodes: int
    prefix: int

    @property
    def cols(self) -> int:
        return -(-(self.prefix + self.num_nodes) // 16) * 16

    @property
    def rows_per_slot(self) -> int:
        return self.cols + 64

    def given(self) -> dict[str, np.ndarray]:
        """What both ways are told: chains of four under the prefix."""
        grid = (self.num_trees, self.num_nodes)
        parents = np.maximum(np.arange(self.num_nodes) - 4, -1).astype(np.int32)
        return {
            "tokens": np.arange(self.num_trees * self.num_nodes).reshape(grid),
            "parents": np.tile(parents, (self.num_trees, 1)),
            "num_new": np.full(self.num_trees, self.num_nodes, np.int32),
            "length": np.full(self.num_trees, self.prefix, np.int32),
            "count": np.zeros(self.num_trees, np.int32),
        }


#: ids, positions, rows and mask on the device
Made = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def by_host(case: Case, device: str, dtype: torch.dtype) -> Callable[[], Made]:
    """As `TreeRunner` has it."""
    grid, given = (case.num_trees, case.num_nodes), case.given()
    small = [torch.zeros(grid, dtype=torch.int64) for _ in range(3)]
    mask = torch.zeros(*grid, case.cols)
    depth, ancestors = _trees(case)

    def run() -> Made:
        ids, positions, rows = (values.numpy() for values in small)
        fill_tree_inputs(
            ids, positions, rows, mask.numpy(), mask.numpy()[:0], *given.values(),
            depth.numpy(), ancestors.numpy(), case.rows_per_slot, 0,
        )  # fmt: skip
        ids_BN, positions_BN, rows_BN = (t.to(device, non_blocking=True) for t in small)
        return ids_BN, positions_BN, rows_BN, mask.to(device, dtype, non_blocking=True)

    return run


def by_kernel(
    case: Case, device: str, dtype: torch.dtype, *, how: How = "auto"
) -> Callable[[], Made]:
    """One copy, one launch, one cast."""
    grid, given = (case.num_trees, case.num_nodes), case.given()
    layout: Layout = {name: (array.shape, str(array.dtype)) for name, array in given.items()}
    told = Packed(layout, torch.device(device))
    small = [torch.zeros(grid, dtype=torch.int64, device=device) for _ in range(3)]
    mask = torch.zeros(*grid, case.cols, device=device)
    depth, ancestors = (values.to(device) for values in _trees(case))

    def run() -> Made:
        for name, values in given.items():
            told.host[name][:] = values
        told.upload()
        at = told.there
        tree_inputs(
            Inputs(*small, mask, mask[:0]),
            NewNodes(at["tokens"], at["parents"], at["num_new"]),
            SlotState(at["length"], at["count"], depth, ancestors),
            rows_per_slot=case.rows_per_slot,
            how=how,
        )
        return small[0], small[1], small[2], mask.to(dtype)

    return run


def _trees(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Depths and ancestors of no rows yet."""
    size = case.num_nodes
    return (
        torch.zeros(case.num_trees, size, dtype=torch.int32),
        torch.zeros(case.num_trees, size, size, dtype=torch.uint8),
    )


def inputs_rows(rounds: int) -> list[dict[str, Any]]:
    """Microseconds of both ways on a GPU, waited for, call by call in turn."""
    rows = []
    for case in (Case(1, 4, 900), Case(1, 64, 900), Case(8, 64, 900), Case(8, 64, 3900)):
        ways = {
            "host": by_host(case, "cuda", torch.bfloat16),
            "kernel": by_kernel(case, "cuda", torch.bfloat16),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 3):
            for name, run in ways.items():
                torch.cuda.synchronize()
                start = perf_counter()
                run()
                torch.cuda.synchronize()
                times[name].append((perf_counter() - start) * 1e6)
        medians = {name: statistics.median(values[3:]) for name, values in times.items()}
        print(
            f"pass inputs                  B {case.num_trees} N {case.num_nodes} L {case.cols}"
            f"   host {medians['host']:9.1f} us  kernel {medians['kernel']:9.1f} us"
        )
        rows.append({"job": "pass inputs", **case._asdict(), **medians})
    return rows
