"""Latencies of a load run under way, in memory that does not grow with the run."""

from __future__ import annotations

import math

import numpy as np

from engine.serving.trace import ArrivalRow, Tick
from workbench.loading import definitions as of
from workbench.loading.latencies import Latency

#: bins are 1% wide, from a microsecond to some three hours
_LEAST_NS, _WIDTH, _BINS = 1e3, math.log(1.01), 2320
_MS = 1e6


class Quantiles:
    """Counts of values in bins whose width is 1% of the value: quantiles are right within 1%."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._sum = 0.0
        self.count = 0

    def add(self, value_ns: float) -> None:
        """Count one value; those out of range count as the nearest that is in it."""
        at = int(math.log(max(value_ns, _LEAST_NS) / _LEAST_NS) / _WIDTH)
        self._counts[min(at, _BINS - 1)] += 1
        self._sum += value_ns
        self.count += 1

    def latency(self) -> Latency | None:
        """Mean (exact) and quantiles, in milliseconds; None where nothing was counted."""
        if not self.count:
            return None
        upto = np.cumsum(self._counts)
        at = np.searchsorted(upto, [share * self.count for share in (0.5, 0.9, 0.99)], side="left")
        median, p90, p99 = (_LEAST_NS * np.exp((at + 0.5) * _WIDTH) / _MS).tolist()
        return Latency(self.count, self._sum / self.count / _MS, median, p90, p99)


class RunningLatencies:
    """Folds rows as they come; definitions are those of `workbench.loading.definitions`."""

    def __init__(self) -> None:
        self._by_name = {name: Quantiles() for name in of.LATENCIES}
        self._last_chunk_ns: dict[int, int] = {}  # of requests under way

    def ended(self, row: ArrivalRow) -> None:
        """A request has ended."""
        self._last_chunk_ns.pop(row.request, None)
        if row.admitted_ns is not None:
            self._by_name["queue"].add(of.queue_ns(row))
        if row.first_token_ns is not None:
            self._by_name["ttft"].add(of.ttft_ns(row))
        if row.reason in of.COMPLETED:
            self._by_name["e2el"].add(of.e2el_ns(row))
            if row.num_kept > 1:
                self._by_name["tpot"].add(of.tpot_ns(row))

    def tick(self, tick: Tick) -> None:
        """A step was made."""
        for share in tick.shares:
            if share.kept:
                last = self._last_chunk_ns.get(share.request)
                if last is not None:
                    self._by_name["itl"].add(tick.row.end_ns - last)
                self._last_chunk_ns[share.request] = tick.row.end_ns

    def latencies(self) -> dict[str, Latency]:
        """Those that are known, in the order in which they are shown."""
        found = {name: one.latency() for name, one in self._by_name.items()}
        return {name: one for name, one in found.items() if one is not None}
