"""The lanes of all ranks: who was busy when, in windows, in an overview and in sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

#: columns of the overview that is drawn where single stretches are too narrow to be seen
BINS = 600
#: order from top to bottom within a rank; others follow by name
_ORDER = ("target", "draft", "network", "host")
PREFILL = "prefill"
#: lanes of a run that recorded none: the stages of its steps, one after another
_DERIVED = (
    ("draft", "draft", "draft_ns"),
    ("target", "score", "score_ns"),
    ("host", "verify", "verify_ns"),
    ("host", "commit", "commit_ns"),
    ("host", "rest", "rest_ns"),
)


@dataclass(frozen=True)
class Lanes:
    """Stretches of work by begin. Times in microseconds."""

    rows: pd.DataFrame  # rank, lane, what, step, begin, end; sorted by begin
    derived: bool  # from stage times, because no lanes were recorded

    @staticmethod
    def of(lanes: pd.DataFrame, ticks: pd.DataFrame, arrivals: pd.DataFrame) -> Lanes:
        """The recorded ones; where there are none, prefills and the stages of the ticks."""
        derived = lanes.empty and not ticks.empty
        rows = _derived(ticks, arrivals) if derived else lanes
        # without a scheduler the clock is the machine's, which began long before
        zero = int(rows["begin_ns"].min()) if ticks.empty and len(rows) else 0
        rows = rows.assign(
            begin=np.round((rows["begin_ns"].to_numpy(np.int64) - zero) / 1e3).astype(np.int64),
            end=np.round((rows["end_ns"].to_numpy(np.int64) - zero) / 1e3).astype(np.int64),
        ).sort_values("begin", kind="stable", ignore_index=True)
        return Lanes(rows, derived)

    @cached_property
    def keys(self) -> list[tuple[int, str]]:
        """Ranks with their lanes, from top to bottom."""
        found = dict.fromkeys(zip(self.rows["rank"].astype(int), self.rows["lane"], strict=True))
        return sorted(found, key=lambda key: (key[0], _place(key[1]), key[1]))

    @cached_property
    def whats(self) -> list[str]:
        """Kinds of work; stretches name them by place."""
        return sorted(map(str, self.rows["what"].unique()))

    @property
    def end_us(self) -> np.ndarray:
        return self.rows["end"].to_numpy()

    def names(self) -> list[dict[str, Any]]:
        """`rank` and `lane` of each, in order."""
        return [{"rank": rank, "lane": lane} for rank, lane in self.keys]

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end of each step that any stretch belongs to, by begin."""
        if self.rows.empty:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        spans = self.rows.groupby("step").agg({"begin": "min", "end": "max"}).sort_values("begin")
        return spans["begin"].to_numpy(), spans["end"].to_numpy()

    def between(self, begin: int, end: int) -> dict[str, list[int]]:
        """Columns of the stretches that begin in [begin, end)."""
        low, high = np.searchsorted(self.rows["begin"].to_numpy(), [begin, end])
        part = self.rows.iloc[low:high]
        place = {key: at for at, key in enumerate(self.keys)}
        what = {name: at for at, name in enumerate(self.whats)}
        return {
            "lane": [place[int(r), n] for r, n in zip(part["rank"], part["lane"], strict=True)],
            "what": [what[str(name)] for name in part["what"]],
            "begin": part["begin"].tolist(),
            "dur": (part["end"] - part["begin"]).tolist(),
        }

    def busy_until(self, moments_us: np.ndarray) -> list[list[int]]:
        """By lane: microseconds of work up to each of these times. Overlaps count once."""
        return [_busy(spans, moments_us).round().astype(int).tolist() for spans in self._spans]

    def overview(self, since_us: int, until_us: int) -> list[list[int]]:
        """By lane: percent busy of each of `BINS` equal parts of the time from one to the other."""
        if until_us <= since_us:
            return [[] for _ in self.keys]
        edges = np.linspace(since_us, until_us, BINS + 1)
        width = (until_us - since_us) / BINS
        shares = [100 * np.diff(_busy(spans, edges)) / width for spans in self._spans]
        return [np.ceil(share - 1e-6).clip(0, 100).astype(int).tolist() for share in shares]

    @cached_property
    def _spans(self) -> Sequence[tuple[np.ndarray, np.ndarray]]:
        """Begin and end of each lane's stretches, cut so that none overlap."""
        found = []
        for rank, lane in self.keys:
            part = self.rows[(self.rows["rank"] == rank) & (self.rows["lane"] == lane)]
            begin, end = part["begin"].to_numpy(), part["end"].to_numpy()
            end = np.maximum.accumulate(np.maximum(end, begin))
            begin = np.maximum(begin, np.concatenate([[0], end[:-1]]))
            found.append((begin, end))
        return found


def _busy(spans: tuple[np.ndarray, np.ndarray], times: np.ndarray) -> np.ndarray:
    """Work done up to each time: all stretches begun by then, less what the last has left."""
    begin, end = spans
    total = np.concatenate([[0], np.cumsum(end - begin)])
    at = np.searchsorted(begin, times, side="right")
    last = np.concatenate([[0], end])[at]
    return np.asarray(total[at] - np.maximum(0, last - times), float)


def _place(lane: str) -> int:
    return _ORDER.index(lane) if lane in _ORDER else len(_ORDER)


def _derived(ticks: pd.DataFrame, arrivals: pd.DataFrame) -> pd.DataFrame:
    """Stages are laid end to end from a step's begin; both models of a pair read a prompt."""
    parts, begin = [], ticks["begin_ns"].to_numpy(np.int64)
    for lane, what, column in _DERIVED:
        end = begin + ticks[column].to_numpy(np.int64)
        spent = end > begin
        part = pd.DataFrame(
            {"rank": ticks["replica"], "step": ticks["tick"], "begin_ns": begin, "end_ns": end}
        ).assign(lane=lane, what=what)
        parts.append(part[spent])
        begin = end
    read = arrivals[arrivals["prefilled_ns"].notna()]
    prefills = {
        "rank": read["replica"],
        "begin_ns": read["admitted_ns"].astype(np.int64),
        "end_ns": read["prefilled_ns"].astype(np.int64),
    }
    parts.append(pd.DataFrame(prefills).assign(step=-1, lane="target", what=PREFILL))
    return pd.concat(parts, ignore_index=True)
