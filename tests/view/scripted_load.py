"""A scripted scheduler's history: rows as a load run leaves them, from a seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stored_runs import PROMPT, Spelled, _done, _request, piece

from engine.serving.trace import ArrivalRow, LaneRow, ShareRow, Tick, TickRow
from workbench.loading.spec import LoadSpec
from workbench.steptext import StepTexts
from workbench.store import Recorder, RunStatus

MS = 1_000_000
CLIENTS = ("alice", "bob <b>x</b>", "\x1b[2Jcarol \u202e", "dora 🦊")


class Load(NamedTuple):
    """Rows of one load run."""

    arrivals: list[ArrivalRow]
    ticks: list[Tick]
    lanes: list[LaneRow]


def scripted_load(
    num: int = 24,
    *,
    slots: int = 4,
    seed: int = 0,
    gap_ms: float = 60.0,
    ranks: int = 0,
    clients: Sequence[str] = CLIENTS,
    replica: int = 0,
    pair: str = "",
    first: int = 0,
) -> Load:
    """`num` requests, first come first served; one in ten is cancelled, one in twelve refused.

    Budgets are divided by bids that follow how easy a request is. `ranks` > 0 leaves lanes of as
    many. Request numbers begin at `first`.
    """
    rng = np.random.default_rng(seed)
    came = np.cumsum(rng.exponential(gap_ms * MS, num)).astype(int).tolist()
    easy = rng.uniform(0.2, 0.9, num)
    most = rng.integers(8, 48, num).tolist()
    prompt = rng.integers(20, 200, num).tolist()
    rows = [
        ArrivalRow(
            first + at, clients[at % len(clients)], pair, replica, came[at], prompt[at], most[at],
            deadline_ns=came[at] + 900 * MS if at % 3 == 0 else None,
        )
        for at in range(num)
    ]  # fmt: skip
    ticks: list[Tick] = []
    lanes: list[LaneRow] = []
    now, active, done = 0, {}, set()
    while len(done) < num:
        for at, row in enumerate(rows):
            if at not in done and at % 12 == 11 and row.arrival_ns <= now:
                rows[at] = row._replace(
                    ended_ns=row.arrival_ns, reason="refused", message="The queue is full."
                )
                done.add(at)
        waiting = [
            at for at in range(num)
            if at not in done and at not in active.values() and rows[at].arrival_ns <= now
        ]  # fmt: skip
        for slot in range(slots):
            if slot not in active and waiting:
                at = waiting.pop(0)
                active[slot] = at
                rows[at] = rows[at]._replace(
                    slot=slot, admitted_ns=now, prefilled_ns=now + 2 * MS + 20_000 * prompt[at]
                )
                for rank in range(ranks):
                    lanes.append(
                        LaneRow(rank, "target", "prefill", len(ticks), now, rows[at].prefilled_ns)
                    )
                now = rows[at].prefilled_ns
        if not active:
            now = min(rows[at].arrival_ns for at in range(num) if at not in done) + 1
            continue
        now, ended = _step(rows, ticks, lanes, now, active, easy, len(waiting), ranks, rng,
                           replica, pair)  # fmt: skip
        for slot in ended:
            done.add(active.pop(slot))
    return Load(rows, ticks, lanes)


def _step(rows, ticks, lanes, now, active, easy, waiting, ranks, rng, replica, pair):
    """One step of all in the batch; the time after it, and the slots that are free again."""
    budget = 24
    total = sum(easy[at] for at in active.values())
    shares, ended = [], []
    passes = int(rng.integers(2, 5))
    draft, score = passes * MS // 2, (4 + len(active)) * MS
    end = now + draft + score + MS
    for slot, at in sorted(active.items()):
        row = rows[at]
        nodes = int(budget * easy[at] / total)
        accepted = int(min(rng.geometric(1.0 - easy[at]) - 1, nodes))
        kept = min(accepted + 1, row.max_new_tokens - row.num_kept)
        shares.append(
            ShareRow(row.request, slot, nodes, min(nodes, passes), float(nodes * easy[at] / 3),
                     accepted, kept)
        )  # fmt: skip
        row = row._replace(num_kept=row.num_kept + kept)
        if row.first_token_ns is None:
            row = row._replace(first_token_ns=end)
        if row.num_kept >= row.max_new_tokens:
            row = row._replace(ended_ns=end, reason="length")
        elif at % 10 == 9 and row.num_kept > 12:
            row = row._replace(ended_ns=end, reason="cancelled")
        if row.ended_ns is not None:
            ended.append(slot)
        rows[at] = row
    ticks.append(
        Tick(
            TickRow(len(ticks), pair, replica, now, end, waiting, len(active), budget,
                    sum(share.nodes for share in shares), passes, draft, score,
                    MS // 4, MS // 4, MS // 2),
            shares,
        )
    )  # fmt: skip
    for rank in range(ranks):
        step = len(ticks) - 1
        late = rank * MS // 8
        lanes.append(LaneRow(rank, "draft", "expand", step, now + late, now + draft))
        if ranks > 1:
            lanes.append(
                LaneRow(rank, "network", "all-gather", step, now + draft, now + draft + MS // 5)
            )
        lanes.append(
            LaneRow(rank, "target", "score", step, now + draft + MS // 5, now + draft + score)
        )
    return end, ended


def store_load(
    folder: Path,
    load: Load,
    *,
    steps_of: Sequence[Sequence] = (),
    status: str = RunStatus.FINISHED,
    **spec: Any,
) -> str:
    """Store a load run of these rows, with the steps of its first requests; returns its id."""
    recorder = Recorder(
        LoadSpec(**{"method": "dynamic-tree"} | spec).model_dump(mode="json"),
        texts=StepTexts(piece=piece, incremental=Spelled),
        folder=folder,
        flush_s=60.0,
    )
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    for number, steps in enumerate(steps_of):
        recorder.request_started(_request(number, PROMPT))
        for step in steps:
            recorder.append(replace(step, request=number))
        recorder.request_done(_done(number, PROMPT, steps))
    recorder.arrivals(load.arrivals)
    recorder.ticks(load.ticks)
    recorder.lanes(load.lanes)
    recorder.finish(RunStatus(status))
    return recorder.run_id
