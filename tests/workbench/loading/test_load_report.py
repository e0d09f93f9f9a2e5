"""Reports on load runs: verdict first, latencies, clients, charts, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_rows import ARRIVALS, TICKS

from workbench.loading.spec import LoadSpec
from workbench.query import EXAMPLES, ask
from workbench.report.bundle import Asked, handed
from workbench.report.from_runs import report_on_runs
from workbench.report.render import to_html, to_markdown
from workbench.steptext import StepTexts
from workbench.store import Recorder, RunStatus


def stored(**spec: object) -> str:
    texts = StepTexts(piece=str, incremental=lambda: None, readers=1)
    asked = LoadSpec(requests=5, slots=2, slo={"ttft": 120}, clients=2, **spec)
    recorder = Recorder(asked.model_dump(mode="json"), texts=texts)
    recorder.begin(mode="eager", plain_step_ns=None, environment={})
    recorder.ticks(TICKS)
    recorder.arrivals(ARRIVALS)
    recorder.finish(RunStatus.FINISHED)
    return recorder.run_id


def test_the_verdict_is_whether_the_load_was_carried() -> None:
    report = report_on_runs([stored()])
    assert report.verdict.startswith("3 of 5 requests completed in 0.4 s: 28.6 tokens per second")
    assert "40% of all kept to ttft 120 ms" in report.verdict
    assert [table.heading for table in report.tables[:3]] == ["Load", "Latencies", "Clients"]
    load, latencies, clients = report.tables[:3]
    assert load.rows[0][1:6] == ["5", "3", "1", "1", "28.6"]
    assert [row[0] for row in latencies.rows] == ["queue", "ttft", "tpot", "itl", "e2el"]
    assert latencies.rows[1][2] == "120 ms"
    assert [row[0] for row in clients.rows] == ["ann", "bob"]
    assert clients.note.startswith("Fairness over 2 clients")
    assert [chart.heading for chart in report.charts[:2]] == [
        "Queue and batch", "Throughput over time",
    ]  # fmt: skip
    assert all(chart.draw("dark").data for chart in report.charts[:2])
    assert report.commands[0].startswith("draftree load --workload code --clients 2 --requests 5")
    protocol = dict(dict(report.about)["Protocol"])
    assert protocol["load"] == (
        "poisson arrivals, 1 requests per second; 2 slots, first-come, budgets auction"
    )


def test_several_runs_stand_beside_each_other() -> None:
    report = report_on_runs([stored(), stored(budgets="fixed:4", seed=3)])
    assert "not measured against each other" in report.verdict
    assert len(report.tables[0].rows) == 2
    headings = [table.heading for table in report.tables]
    assert sum(heading.startswith("Latencies of ") for heading in headings) == 2


@pytest.mark.parametrize("form", ["html", "markdown", "csv", "json"])
def test_it_is_handed_on(form: str, tmp_path: Path) -> None:
    file = handed(Asked((stored(),)), form)
    assert len(file.content) > 500


def test_html_and_markdown_show_it() -> None:
    report = report_on_runs([stored()])
    for text in (to_html(report), to_markdown(report)):
        assert "requests completed" in text
        assert "end to end, from arrival" in text


def test_examples_of_queries_ask_them() -> None:
    examples = {example.name: example.sql for example in EXAMPLES}
    run_id = stored()
    waiting = ask(examples["Waiting under load"], [run_id]).rows
    assert [row[1:5] for row in waiting] == [("ann", 3, 2, 60.0), ("bob", 2, 1, 10.0)]
    assert [row[5] for row in waiting] == [170.0, 110.0]
    trees = ask(examples["Trees under load"], [run_id]).rows
    assert [row[1:5] for row in trees] == [(1, 1, 3.0, 2.0), (2, 6, 3.0, pytest.approx(1.67))]
