"""Several ranks in a run or a comparison: what is asked for, and how processors are shared out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from engine.parallel.build import RanksConfig
    from engine.parallel.placement import Divided, Placement

#: as for engine.parallel.placement, which a form need not import torch for
PARALLEL = ("draft", "target", "both")
PLACEMENTS = ("beside", "own", "split")
MOST_RANKS = 64


def threads_per_rank(threads: int | None, num_ranks: int) -> int | None:
    """Torch threads of each rank: as asked for, or so many that all ranks find processors.

    None where there is one rank and nothing was asked for: torch chooses.
    """
    if threads is not None or num_ranks == 1:
        return threads
    return max(1, len(os.sched_getaffinity(0)) // num_ranks)


def ranks_config(
    num_ranks: int, *, parallel: str, placement: str, threads: int | None
) -> RanksConfig | None:
    """How an engine is to use several ranks; None where it is one."""
    if num_ranks == 1:
        return None
    from engine.parallel.build import RanksConfig

    return RanksConfig(
        num_ranks,
        divided=cast("Divided", parallel),
        placement=cast("Placement", placement),
        threads=threads_per_rank(threads, num_ranks) or 1,
    )


def reserve(num_ranks: int, *, device: str, threads: int | None) -> None:
    """Start the most ranks that a comparison needs before its first arm asks for fewer."""
    if num_ranks > 1:
        from engine.parallel.group import group_of

        group_of(num_ranks, device=device, threads=threads_per_rank(threads, num_ranks) or 1)
