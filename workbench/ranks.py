"""Several ranks in a run, a load or a comparison: what is refused, who gets which processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from engine.decode import Engine
    from engine.parallel.asked import RanksConfig
    from engine.parallel.build import Parallel
    from engine.parallel.placement import Divided, Placement
    from engine.serving.trace import LaneRow

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


def why_not(
    num_ranks: int, *, method: str, options: Any, num_drafts: int, parallel: str, placement: str
) -> str:
    """Why so many ranks make no sense for a method with these options; empty where they do.

    `num_drafts`: draft models, 0 where the method takes none. Needs no model, so a form can ask.
    """
    from engine.parallel import needs

    if num_ranks == 1:
        return ""
    return needs.why_not(
        method,
        options,
        num_drafts=num_drafts,
        divided=cast("Divided", parallel),
        placement=cast("Placement", placement),
    )


def ranks_config(
    num_ranks: int, *, parallel: str, placement: str, threads: int | None
) -> RanksConfig | None:
    """How an engine is to use several ranks; None where it is one."""
    if num_ranks == 1:
        return None
    from engine.parallel.asked import RanksConfig

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


class RunningRanks(NamedTuple):
    """Ranks of the engines that serve a load. `since_ns`: their clock when the load's shows 0."""

    ranks: tuple[Parallel, ...] = ()
    since_ns: int = 0

    @classmethod
    def of(cls, engines: Mapping[str, Engine], *, clock: Callable[[], int]) -> RunningRanks:
        """Lanes are noted from here on; `clock` is the load's."""
        ranks = tuple(one.parallel for one in engines.values() if one.parallel is not None)
        for one in ranks:
            one.begin_lanes()
        return cls(ranks, perf_counter_ns() - clock())

    def take_lanes(self) -> Iterable[LaneRow]:
        """What was noted since this was last asked, on the load's clock."""
        from engine.parallel.lanes import shifted

        return [row for one in self.ranks for row in shifted(one.take_lanes(), -self.since_ns)]
