"""What a step was expected to bring: stored, read back, summed up; unknown in older files."""

from __future__ import annotations

import math

import duckdb
import pytest
from store_records import SPEC, done, request, step, texts

from workbench import metrics
from workbench.figures_text import figures
from workbench.store import Recorder, RunStatus, open_run
from workbench.store.index import run_file
from workbench.view.headline import figures as lead_figures


def record_run(*expected: tuple[float, float]) -> str:
    """A run whose steps expected so many tokens and milliseconds."""
    recorder = Recorder(SPEC, texts=texts())
    recorder.begin(mode="eager", plain_step_ns=4000, environment={})
    recorder.request_started(request())
    for number, (tokens, ms) in enumerate(expected):
        record = step(number)  # 3 tokens in 6070 ns
        record.tree.expected_tokens, record.tree.expected_ms = tokens, ms
        recorder.append(record)
    recorder.request_done(done())
    recorder.finish(RunStatus.FINISHED)
    return recorder.run_id


def test_they_come_back_and_unknown_ones_are_null() -> None:
    with open_run(record_run((2.5, 0.007), (math.nan, math.nan))) as run:
        assert run.steps()["expected_tokens"].isna().tolist() == [False, True]
        first, second = run.tree(0, 0), run.tree(0, 1)
        summary = metrics.summary_from_json(run.info.summary)
    assert (first.expected_tokens, first.expected_ms) == (2.5, 0.007)
    assert math.isnan(second.expected_tokens)
    assert math.isnan(second.expected_ms)
    known = metrics.forecast(summary)
    assert known is not None
    assert known.predicted == pytest.approx(2.5 / 7e-6)
    assert known.measured == pytest.approx(3 / 6.07e-6), "of the step that was predicted alone"
    assert known.ratio == pytest.approx(2.5 / 7 * 6.07 / 3)


def test_figures_show_them_where_there_are_any() -> None:
    for expected, shown in (((3.0, 0.006), True), ((math.nan, math.nan), False)):
        with open_run(record_run(expected)) as run:
            summary = metrics.summary_from_json(run.info.summary)
        labels = [figure["label"] for figure in lead_figures(summary, 4000)]
        assert ("tokens per second, predicted" in labels) is shown
        assert figures(summary, plain_step_ns=4000, mode="eager") is not None


def test_files_of_format_1_are_read_as_knowing_none() -> None:
    run_id = record_run((2.5, 0.007))
    with duckdb.connect(run_file(run_id)) as connection:
        for column in ("expected_tokens", "expected_ms"):
            connection.execute(f"ALTER TABLE step DROP COLUMN {column}")
        connection.execute("UPDATE schema_version SET version = 1")
    with open_run(run_id) as run:
        tree = run.step_record(0, 0).tree
    assert math.isnan(tree.expected_ms)
    assert tree.num_nodes == 6
