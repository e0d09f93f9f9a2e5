"""How requests were served, as the requests view draws it: whole columns, and windows of rows.

A load run leaves arrivals, ticks, shares and lanes (engine/serving/trace.py); a run on several
ranks leaves lanes alone. Either becomes a list of moments, one per step. The browser gets the
columns of all moments and requests at once, and shares and lanes in chunks of moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from engine.serving.trace import ArrivalRow, LaneRow, ShareRow, Tick, TickRow
from workbench.view.requests_lanes import Lanes
from workbench.view.requests_latency import running_percentiles
from workbench.view.visible import safe_text

#: moments whose shares and lanes travel together
CHUNK = 256
#: most characters of a client's name or of a message
_MOST_NAME, MOST_MESSAGE = 60, 300
_STAGES = ("draft", "score", "verify", "commit", "rest")


class History(NamedTuple):
    """Rows of one run, with the columns that the store gives them."""

    arrivals: pd.DataFrame
    ticks: pd.DataFrame
    shares: pd.DataFrame
    lanes: pd.DataFrame

    @property
    def has_requests(self) -> bool:
        """Whether requests came and went: a load run, and not only lanes of ranks."""
        return len(self.arrivals) > 0


def history_of(
    arrivals: Iterable[ArrivalRow], ticks: Iterable[Tick], lanes: Iterable[LaneRow] = ()
) -> History:
    """Rows of a scheduler as frames; as `workbench.store` would give them back."""
    ticks = list(ticks)
    shares = [(tick.row.tick, tick.row.replica, *share) for tick in ticks for share in tick.shares]
    return History(
        pd.DataFrame(list(arrivals), columns=list(ArrivalRow._fields)),
        pd.DataFrame([tick.row for tick in ticks], columns=list(TickRow._fields)),
        pd.DataFrame(shares, columns=["tick", "replica", *ShareRow._fields]),
        pd.DataFrame(list(lanes), columns=list(LaneRow._fields)),
    )


class Group(NamedTuple):
    """One batch: a model pair on a replica. Slots are counted within it."""

    replica: int
    pair: str


class Served:
    """One run's history laid out. Times become whole microseconds, -1 where there is none."""

    def __init__(self, history: History, *, identity: str = "", since_ns: int = 0) -> None:
        """`since_ns`: what came before is not in `history`, of a run under way."""
        self.id, self.since_us = identity, since_ns // 1000
        self.history = history
        ticks, arrivals = history.ticks, history.arrivals
        self._ticks = ticks.sort_values("begin_ns", kind="stable", ignore_index=True)
        keys = [*zip(ticks["replica"], ticks["pair"], strict=True)]
        keys += [*zip(arrivals["replica"], arrivals["pair"], strict=True)]
        self.groups = [Group(int(r), str(p)) for r, p in sorted(dict.fromkeys(keys))]
        self._group_at = {group: at for at, group in enumerate(self.groups)}
        self.lanes = Lanes.of(history.lanes, self._ticks, arrivals)
        if len(self._ticks):
            self._begin, self._end = _us(self._ticks["begin_ns"]), _us(self._ticks["end_ns"])
        else:
            self._begin, self._end = self.lanes.steps()

    def labels_of(self, rows: pd.DataFrame) -> list[str]:
        """What tells the batch of each of these requests or ticks from the others."""
        labels = [_group_label(group, self.groups) for group in self.groups]
        return [labels[at] for at in self._groups_of(rows)]

    def slots(self, group: Group) -> int:
        """As many as were ever taken, and at least the largest batch."""
        rows, ticks = self.history.arrivals, self._ticks
        own = rows[(rows["replica"] == group.replica) & (rows["pair"] == group.pair)]
        mine = ticks[(ticks["replica"] == group.replica) & (ticks["pair"] == group.pair)]
        taken = int(_whole(own["slot"]).max()) + 1 if len(own) else 0
        return max(taken, int(mine["active"].max()) if len(mine) else 0)

    @property
    def num_moments(self) -> int:
        return len(self._begin)

    @property
    def num_chunks(self) -> int:
        return -(-self.num_moments // CHUNK)

    @property
    def length_us(self) -> int:
        """From the start of the clock to the last thing that happened."""
        ends = [self._end, self.lanes.end_us, _us(self.history.arrivals["ended_ns"])]
        ends.append(_us(self.history.arrivals["arrival_ns"]))
        return max((int(end.max()) for end in ends if len(end)), default=0)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that the view holds at once; plain JSON."""
        names = _short_names(self.history.arrivals["client"])
        return {
            "chunk": CHUNK,
            "since": self.since_us,
            "length": self.length_us,
            "moments": self._moments(),
            "groups": [
                {"label": _group_label(group, self.groups), "slots": self.slots(group)}
                for group in self.groups
            ],
            "clients": names,
            "requests": self._requests(names),
            "lanes": self.lanes.names(),
            "overview": self.lanes.overview(self.since_us, self.length_us),
            "busy": self.lanes.busy_until(self._end),
            "derived": self.lanes.derived,
            "whats": self.lanes.whats,
            "latency": running_percentiles(self.history.arrivals),
        }

    def chunk(self, number: int) -> dict[str, Any]:
        """Shares and lanes of the moments from `number` * CHUNK on."""
        first = number * CHUNK
        last = min(first + CHUNK, self.num_moments)
        shares = self._shares[self._shares["moment"].between(first, last - 1)]
        begin = -1 if first == 0 else int(self._begin[first])
        end = int(self._begin[last]) if last < self.num_moments else self.length_us + 1
        numbers = ("moment", "request", "slot", "nodes", "depth", "accepted", "kept", "had", "step")
        return {
            "shares": {name: shares[name].astype(int).tolist() for name in numbers}
            | {"bid": [None if np.isnan(b) else round(b, 3) for b in shares["bid"]]},
            "lanes": self.lanes.between(begin, end),
        }

    # --- inside ---

    def _moments(self) -> dict[str, Any]:
        ticks = self._ticks
        found: dict[str, Any] = {"begin": self._begin.tolist(), "end": self._end.tolist()}
        if not len(ticks):
            return found
        found["group"] = self._groups_of(ticks)
        found["seats"] = self._seats_used()
        for name in ("tick", "waiting", "active", "nodes", "draft_passes"):
            found[name] = ticks[name].astype(int).tolist()
        found["budget"] = [None if pd.isna(b) else int(b) for b in ticks["budget"]]
        for stage in _STAGES:
            found[stage] = _us(ticks[f"{stage}_ns"]).tolist()
        return found

    def _seats_used(self) -> list[int]:
        """Percent of all slots' time up to the end of each step that steps used."""
        slots = max(1, sum(self.slots(group) for group in self.groups))
        used = np.cumsum(self._ticks["active"].to_numpy(float) * (self._end - self._begin))
        passed = np.maximum(self._end - self.since_us, 1)
        return np.round(100 * used / (slots * passed)).astype(int).tolist()

    def _requests(self, names: Sequence[str]) -> dict[str, Any]:
        rows = self.history.arrivals.sort_values(
            ["arrival_ns", "request"], kind="stable", ignore_index=True
        )
        place = {name: at for at, name in enumerate(names)}
        found: dict[str, Any] = {
            "id": rows["request"].astype(int).tolist(),
            "client": [place[shown_name(client)] for client in rows["client"]],
            "group": self._groups_of(rows),
            "prompt": rows["num_prompt"].astype(int).tolist(),
            "most": rows["max_new_tokens"].astype(int).tolist(),
            "kept": rows["num_kept"].astype(int).tolist(),
            "slot": _whole(rows["slot"]).tolist(),
            "reason": [_word(reason) for reason in rows["reason"]],
            "message": [safe_text(str(m or ""))[:MOST_MESSAGE] for m in rows["message"]],
            "attempts": rows["attempts"].fillna(1).astype(int).tolist(),
        }
        for name in ("arrival", "deadline", "timeout", "admitted", "prefilled", "ended"):
            found[name] = _us(rows[f"{name}_ns"]).tolist()
        found["first"] = _us(rows["first_token_ns"]).tolist()
        return found

    @cached_property
    def _shares(self) -> pd.DataFrame:
        """Shares by moment, with the request's own step and what it had kept after it."""
        shares = self.history.shares
        if shares.empty:
            return shares.assign(moment=[], had=[], step=[])
        moments = self._ticks[["tick", "replica"]].assign(moment=np.arange(self.num_moments))
        found = shares.merge(moments, on=["tick", "replica"])
        found = found.sort_values(["moment", "slot"], kind="stable", ignore_index=True)
        by_request = found.groupby("request", sort=False)
        return found.assign(had=by_request["kept"].cumsum(), step=by_request.cumcount())

    def _groups_of(self, rows: pd.DataFrame) -> list[int]:
        keys = zip(rows["replica"], rows["pair"], strict=True)
        return [self._group_at[Group(int(replica), str(pair))] for replica, pair in keys]


def _us(column: pd.Series) -> np.ndarray:
    """Nanoseconds as whole microseconds, -1 where unknown."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(np.isnan(values), -1, np.round(values / 1e3)).astype(np.int64)


def _whole(column: pd.Series) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(np.isnan(values), -1, values).astype(np.int64)


def _word(value: Any) -> str:
    return safe_text(value) if isinstance(value, str) else ""


def shown_name(client: Any) -> str:
    """A client's name in one line of bounded length, safe to show."""
    shown = safe_text(str(client or "")).replace("\n", " ").replace("\t", " ").strip()
    return shown if len(shown) <= _MOST_NAME else shown[: _MOST_NAME - 1] + "…"


def _short_names(clients: pd.Series) -> list[str]:
    return list(dict.fromkeys(shown_name(client) for client in clients))


def _group_label(group: Group, groups: Sequence[Group]) -> str:
    """What tells a batch from the others; empty where there is one."""
    parts = []
    if len({other.replica for other in groups}) > 1:
        parts.append(f"Replica {group.replica + 1}")
    if len({other.pair for other in groups}) > 1:
        parts.append(shown_name(group.pair) or "default pair")
    return " · ".join(parts)
