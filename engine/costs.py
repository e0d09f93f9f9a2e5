"""What passes cost: the time of a pass against its nodes and the context, measured in place."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from engine.runner import Nodes, TreeRunner

_REPEATS = 5
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True)
class PassCost:
    """Milliseconds of one pass by nodes, at a short and at a long context; between them linear."""

    nodes_S: tuple[int, ...]
    contexts_2: tuple[int, int]
    ms_2S: tuple[tuple[float, ...], tuple[float, ...]]

    def at(self, context: int) -> np.ndarray:
        """Milliseconds of passes over 0, 1, 2, ... nodes at a context; index 0 is 0."""
        low, high = self.contexts_2
        share = min(max((context - low) / max(high - low, 1), 0.0), 1.0)
        ms = [a + share * (b - a) for a, b in zip(*self.ms_2S, strict=True)]
        counts = np.arange(self.nodes_S[-1] + 1)
        found = np.interp(counts, self.nodes_S, np.maximum.accumulate(ms))
        found[0] = 0.0
        return found

    def as_json(self) -> dict[str, Any]:
        return {"nodes": self.nodes_S, "contexts": self.contexts_2, "ms": self.ms_2S}


def measure(runner: TreeRunner, most_nodes: int) -> PassCost:
    """Time passes of a free runner (no request under way), the median of a few each."""
    sizes = sorted({min(size, most_nodes) for size in _SIZES})
    room = runner.capacity - 1
    contexts = (min(32, room), max(min(room * 3 // 4, 2048), 1))
    rows = []
    for context in contexts:
        runner.admit(0, [0] * context)
        rows.append(tuple(_time(runner, size) for size in sizes))
        runner.release(0)
    return PassCost(tuple(sizes), contexts, (rows[0], rows[1]))


def _time(runner: TreeRunner, size: int) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        start = perf_counter()
        logits, _ = runner.forward({0: Nodes([0] * size, [-1, *[0] * (size - 1)])})
        float(logits.flatten()[0])  # waits for the device
        times.append(perf_counter() - start)
        runner.keep(0, [])
    return float(np.median(times[1:])) * 1e3
