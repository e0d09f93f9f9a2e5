"""A run goes in and comes out the same."""

from __future__ import annotations

import json
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from store_records import SPEC, done, request, step, texts

from engine.errors import UserError
from engine.records import StepRecord
from engine.tree import Children
from workbench import metrics
from workbench.store import Recorder, RunStatus, open_run
from workbench.store.schema import TABLES

HOSTILE = "<script>alert(1)</script> \x1b[31m \x00 \u202e 👩‍👩‍👧 é 'quoted'; DROP TABLE run; --"


def record_run(steps: int = 2, **settings: object) -> str:
    recorder = Recorder(SPEC, texts=texts(), **settings)
    recorder.begin(mode="eager", plain_step_ns=4000, environment={"cpu": "abacus"})
    recorder.request_started(request())
    for number in range(steps):
        recorder.append(step(number))
    recorder.request_done(done())
    assert recorder.finish(RunStatus.FINISHED) is RunStatus.FINISHED
    return recorder.run_id


def assert_same_step(one: StepRecord, other: StepRecord) -> None:
    for holder, names in (
        ("tree", ["tokens_M", "parents_M", "depth_M", "rank_M", "draft_logprob_M", "source_M",
                  "round_added_M", "round_pruned_M"]),
        ("verdict", ["fate_N", "accept_prob_N"]),
    ):  # fmt: skip
        for name in names:
            ours, theirs = (
                getattr(getattr(one, holder), name),
                getattr(getattr(other, holder), name),
            )
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            assert ours.dtype == theirs.dtype, name
    for name in ("target_logprob_M", "emitted_logprob", "top2_gap"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.tree.num_nodes, one.tree.children, one.tree.draft_passes) == (
        other.tree.num_nodes,
        other.tree.children,
        other.tree.draft_passes,
    )
    assert one.verdict.path_A == other.verdict.path_A
    assert one.verdict.next_token == other.verdict.next_token
    assert one.verdict.origin is other.verdict.origin
    for name in ("request", "step", "position", "emitted", "num_kept", "times", "batch",
                 "batch_step", "time_ns", "budget"):  # fmt: skip
        assert getattr(one, name) == getattr(other, name), name


def test_a_step_comes_back_as_it_was() -> None:
    run_id = record_run()
    with open_run(run_id) as run:
        again = run.step_record(0, 1)
        assert_same_step(again, step(1))
        again.tree.check_integrity()
        assert run.tree(0, 0).children is Children.COUPLED


def test_the_runs_own_row() -> None:
    run_id = record_run()
    with open_run(run_id) as run:
        info = run.info
    assert info.run_id == run_id
    assert info.status is RunStatus.FINISHED
    assert (info.mode, info.plain_step_ns) == ("eager", 4000)
    assert info.environment == {"cpu": "abacus"}
    assert info.spec.seed == 7
    assert info.started < info.finished
    summary = metrics.summary_from_json(info.summary)
    assert summary == metrics.summarise([step(0), step(1)], [done()])


def test_frames() -> None:
    with open_run(record_run()) as run:
        steps, nodes, tokens, requests = (
            run.steps(),
            run.nodes(step=1),
            run.tokens(),
            run.requests(),
        )
        pieces = run.pieces()
    assert steps["num_drafted"].tolist() == [5, 5]
    assert steps["wall_ns"].tolist() == [6070, 6070]
    assert steps["score_ns"].sum() == 10_000
    assert nodes["fate"].tolist() == [
        "root", "accepted", "not_reached", "rejected", "accepted", "not_reached", "pruned",
    ]  # fmt: skip
    assert nodes["piece"].tolist()[:2] == ["p10", "p11"]
    assert nodes["source"].tolist()[:2] == ["root", "draft"]
    assert nodes["round_pruned"].tolist() == [-1] * 6 + [2]
    assert pd.isna(nodes["calibrated_prob"]).all()
    assert tokens["origin"].tolist() == ["draft", "draft", "bonus"] * 2
    assert tokens["text"].tolist()[:3] == ["w11 ", "w14 ", "w20 "]
    assert tokens["position"].tolist() == [5, 6, 7, 8, 9, 10]
    assert tokens["draft_rank"].tolist()[:2] == [0, 1]
    assert pd.isna(tokens["draft_rank"].iloc[2])
    assert requests.loc[0, "num_kept"] == 16
    assert requests.loc[0, "finish_reason"] == "length"
    assert pieces[14] == "p14"


def test_unknown_values_are_null_not_nan() -> None:
    with open_run(record_run(1)) as run:
        known = run.query(
            "SELECT count(target_logprob) AS p, count(accept_prob) AS a, "
            "count(*) FILTER (isnan(accept_prob)) AS nan FROM node"
        )
    assert known.iloc[0].tolist() == [6, 3, 0]


def test_every_table_has_its_columns() -> None:
    with open_run(record_run()) as run:
        for table, columns in TABLES.items():
            assert run.arrow(table).column_names == list(columns)


def test_hostile_text_survives() -> None:
    prompt = HOSTILE + "x" * 100_000
    recorder = Recorder(SPEC | {"prompt": prompt}, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={"name": HOSTILE})
    recorder.request_started(request(prompt=prompt))
    recorder.request_done(done(text=HOSTILE))
    recorder.finish(RunStatus.FAILED, HOSTILE)
    with open_run("last") as run:
        row = run.requests().iloc[0]
        assert row["prompt"] == prompt
        assert row["text"] == HOSTILE
        assert run.info.spec.prompt == prompt
        assert run.info.message == HOSTILE
        assert run.info.plain_step_ns is None


def test_draft_probs_stay_out_and_repeats_are_told_apart() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    for repeat in range(2):
        recorder.request_started(request(repeat=repeat))
        recorder.append(step(0, batch_step=repeat), repeat)
        recorder.request_done(done(text=f"take {repeat}", repeat=repeat))
    recorder.finish(RunStatus.FINISHED)
    with open_run("last") as run:
        assert run.requests()["text"].tolist() == ["take 0", "take 1"]
        assert len(run.nodes(repeat=1)) == 7
        assert run.step_record(0, 0, repeat=1).batch_step == 1
        assert run.tree(0, 0).draft_probs == {}


def test_a_request_done_without_having_been_started_is_kept() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.request_done(done(3))
    recorder.finish(RunStatus.FINISHED)
    with open_run("last") as run:
        row = run.requests().iloc[0]
    assert (row["request"], row["text"], row["num_prompt"]) == (3, "upon a time", 3)


def test_an_unfinished_request_keeps_its_prompt() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.request_started(request(prompt="long ago"))
    recorder.append(step(0))
    recorder.finish(RunStatus.CANCELLED)
    with open_run("last") as run:
        assert run.info.status is RunStatus.CANCELLED
        row = run.requests().iloc[0]
        assert row["prompt"] == "long ago"
        assert pd.isna(row["finish_reason"])


def test_an_empty_run_opens() -> None:
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.finish(RunStatus.CANCELLED)
    with open_run("last") as run:
        assert run.steps().empty
        with pytest.raises(UserError, match="holds no steps"):
            run.tree(0, 0)


def test_missing_steps_are_named() -> None:
    with open_run(record_run()) as run:
        with pytest.raises(UserError, match="steps 0 to 1, not 5"):
            run.tree(0, 5)
        with pytest.raises(UserError, match="no steps of request 9; it has those of 0"):
            run.tree(9, 0)


def test_a_query_reaches_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    run_id = record_run()
    with open_run(run_id) as run:
        for sql in (
            f"SELECT * FROM read_csv('{secret}')",
            f"SELECT * FROM '{secret}'",
            f"ATTACH '{tmp_path / 'other.duckdb'}'",
            f"COPY run TO '{tmp_path / 'out.csv'}'",
            "SET enable_external_access = true",
            "INSERT INTO piece VALUES (1, 'x')",
            "SELECT * FROM secret",
        ):
            with pytest.raises(duckdb.Error):
                run.query(sql)
    assert not (tmp_path / "out.csv").exists()


def test_appending_costs_the_decode_loop_next_to_nothing() -> None:
    recorder = Recorder(SPEC, texts=texts(), flush_s=0.02)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    records = [step(number) for number in range(2000)]
    costs = []
    for record in records:
        start = time.perf_counter_ns()
        recorder.append(record)
        costs.append(time.perf_counter_ns() - start)
        time.sleep(0.0002)
    recorder.finish(RunStatus.FINISHED)
    assert np.median(costs) < 20_000
    assert recorder.summary.steps == 2000


def test_rows_are_committed_while_the_run_goes_on() -> None:
    recorder = Recorder(SPEC, texts=texts(), flush_s=0.05)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.append(step(0))
    deadline = time.monotonic() + 10
    while recorder.summary.steps == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.summary.steps == 1
    recorder.finish(RunStatus.FINISHED)


def test_summary_is_json_without_surprises() -> None:
    record_run()
    with open_run("last") as run:
        json.dumps(run.info.summary, allow_nan=False)
        assert run.info.summary["tokens_per_step"] == 3.0
