"""What a step takes on one rank: the times that placement split balances."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np
import torch

from engine.parallel.placement import PassTimes
from engine.runner import Nodes, TreeRunner

#: tokens before the measured passes
MEASURED_PREFIX = 32
_WARM_UP, _TIMES = 2, 5


def step_times(
    target: TreeRunner, draft: TreeRunner, *, nodes: int, rows: int, levels: int
) -> PassTimes:
    """Times of a target pass over `nodes` and of `levels` draft passes that run `rows` in all."""
    per_level = max(1, -(-rows // max(levels, 1)))
    return PassTimes(
        target=_pass_ms(target, nodes), draft=levels * _pass_ms(draft, min(per_level, rows))
    )


def _pass_ms(runner: TreeRunner, num_nodes: int) -> float:
    """Median time of a pass over a chain of so many nodes, behind a short prefix in slot 0."""
    prefix = min(MEASURED_PREFIX, runner.capacity)
    runner.admit(0, [0] * prefix)
    nodes = Nodes([0] * num_nodes, list(range(-1, num_nodes - 1)))
    wait: Callable[[], None] = (
        torch.cuda.synchronize if runner.loaded.device.startswith("cuda") else lambda: None
    )
    times = []
    for _ in range(_WARM_UP + _TIMES):
        begin = perf_counter_ns()
        runner.forward({0: nodes})
        wait()
        times.append(perf_counter_ns() - begin)
        runner.keep(0, [])
    runner.release(0)
    return float(np.median(times[_WARM_UP:])) / 1e6
