"""Arrivals, ticks, shares and lanes: written by the writer's thread, read back as told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from store_records import SPEC, done, request, step, texts

from engine.serving.trace import ArrivalRow, LaneRow, ShareRow, Tick, TickRow
from workbench.query import Query
from workbench.store import Recorder, RunStatus, export_run, open_run, serving
from workbench.store.index import run_file
from workbench.store.schema import TABLES


def arrival(number: int, **changes: object) -> ArrivalRow:
    row = ArrivalRow(
        request=number, client="ann", pair="", replica=0, arrival_ns=1000 * number, num_prompt=3,
        max_new_tokens=9,
    )  # fmt: skip
    return row._replace(**changes)


def tick(number: int, *requests: int, budget: int | None = None) -> Tick:
    row = TickRow(
        tick=number, pair="", replica=0, begin_ns=5000 * number, end_ns=5000 * number + 4000,
        waiting=2, active=len(requests), budget=budget, nodes=3 * len(requests), draft_passes=2,
        draft_ns=900, score_ns=2500, verify_ns=100, commit_ns=50, rest_ns=450,
    )  # fmt: skip
    shares = [
        ShareRow(one, slot, nodes=3, depth=2, bid=math.nan if one else 0.75, accepted=1, kept=2)
        for slot, one in enumerate(requests)
    ]
    return Tick(row, shares)


def ended(number: int) -> ArrivalRow:
    return arrival(
        number, slot=0, admitted_ns=10, prefilled_ns=20, first_token_ns=30, ended_ns=99,
        num_kept=9, reason="length",
    )  # fmt: skip


def recorded(*, arrivals: list[ArrivalRow], ticks: list[Tick] = []) -> str:  # noqa: B006
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.arrivals(arrivals)
    recorder.ticks(ticks)
    recorder.lanes([LaneRow(1, "network", "all-gather", 4, 100, 250)])
    recorder.finish(RunStatus.FINISHED)
    return recorder.run_id


def test_rows_come_back_as_they_were_told() -> None:
    told = [tick(0, 0, 1), tick(1, 1, budget=8), tick(2)]
    refused = arrival(1, reason="refused", message="It is too long.", ended_ns=1000)
    with open_run(recorded(arrivals=[ended(0), refused], ticks=told)) as run:
        assert serving.serves(run)
        assert serving.arrival_rows(run) == [ended(0), refused]
        back = serving.tick_rows(run)
        assert [one.row for one in back] == [one.row for one in told]
        assert [len(one.shares) for one in back] == [2, 1, 0]
        assert back[0].shares[0] == told[0].shares[0]
        assert math.isnan(back[0].shares[1].bid)
        assert serving.lane_rows(run) == [LaneRow(1, "network", "all-gather", 4, 100, 250)]
        assert serving.shares(run)["bid"].isna().tolist() == [False, True, True]


def test_of_each_request_the_last_row_is_stored_once() -> None:
    recorder = Recorder(SPEC, texts=texts(), flush_s=1000)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.arrivals([arrival(0), arrival(1), arrival(0, slot=0, admitted_ns=10)])
    recorder.flush()
    recorder.arrivals([ended(0)])
    recorder.flush()
    lost = arrival(2, reason="lost", message="Its replica is gone.", ended_ns=5)
    recorder.arrivals([lost])
    recorder.flush()
    recorder.arrivals([ended(2)._replace(attempts=2), arrival(1, slot=1)])
    recorder.finish(RunStatus.CANCELLED)
    with open_run(recorder.run_id) as run:
        rows = serving.arrival_rows(run)
    assert rows == [ended(0), arrival(1, slot=1), ended(2)._replace(attempts=2)]


def test_rows_without_a_step_are_written_while_the_run_goes_on() -> None:
    recorder = Recorder(SPEC, texts=texts(), flush_s=1000)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.ticks([tick(0, 0)])
    recorder.flush()
    assert recorder._connection.execute("SELECT count(*) FROM tick").fetchall() == [(1,)]
    recorder.finish(RunStatus.FINISHED)


def test_a_row_that_does_not_fit_its_table_fails_the_run() -> None:
    recorder = Recorder(SPEC, texts=texts(), flush_s=1000)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.arrivals([ended(0)._replace(num_kept="many")])
    assert recorder.finish(RunStatus.FINISHED) is RunStatus.FAILED
    assert recorder.error is not None
    assert "could not be written" in recorder.error


@pytest.fixture
def older() -> str:
    """A run of format 2, which has none of these tables."""
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.request_started(request())
    recorder.append(step(0))
    recorder.request_done(done())
    recorder.finish(RunStatus.FINISHED)
    with duckdb.connect(run_file(recorder.run_id)) as connection:
        for table in ("arrival", "tick", "share", "lane"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE schema_version SET version = 2")
    return recorder.run_id


def test_files_of_format_2_read_as_empty(older: str, tmp_path: Path) -> None:
    with open_run(older) as run:
        assert not serving.serves(run)
        assert serving.arrivals(run).columns.tolist() == list(TABLES["arrival"])
        assert serving.arrival_rows(run) == []
        assert serving.tick_rows(run) == []
        assert serving.lane_rows(run) == []
        files = export_run(run, tmp_path / "out", form="csv")
        assert len(files) == len(TABLES)
        assert (tmp_path / "out" / "tick.csv").read_text().startswith('"run","tick","pair"')
        assert len(run.steps()) == 1


def test_queries_see_old_and_new_runs_together(older: str) -> None:
    new = recorded(arrivals=[ended(0)], ticks=[tick(0, 0)])
    sql = (
        "SELECT run.run, count(tick.tick) AS ticks, count(arrival.reason) AS arrivals FROM run "
        "LEFT JOIN tick USING (run) LEFT JOIN arrival USING (run) LEFT JOIN share USING (run) "
        "LEFT JOIN lane USING (run) GROUP BY ALL ORDER BY ticks"
    )
    found = Query(sql, [older, new]).result()
    assert found.rows == [(older, 0, 0), (new, 1, 1)]


def test_texts_of_ended_requests_are_forgotten_by_a_single_reader() -> None:
    words = texts()
    alone = type(words)(piece=str, incremental=words._incremental, readers=1)
    recorder = Recorder(SPEC, texts=alone, flush_s=1000)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    for number in range(3):
        recorder.request_started(request(number))
        recorder.append(step(0, request=number))
        recorder.request_done(replace(done(), request=number))
        recorder.flush()
    assert alone.held == 0
    assert not recorder._asked
    recorder.finish(RunStatus.FINISHED)
