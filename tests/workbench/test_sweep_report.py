"""A sweep in words and as a report: where it pays best, a map over two options, what is left."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from made_comparisons import gain, make_comparison

from engine.errors import UserError
from workbench.comparing import result
from workbench.report.files import gather, write_report
from workbench.sweeping import reading
from workbench.sweeping.frame import sweep_rows
from workbench.sweeping.keeping import Sweep, save_sweep
from workbench.sweeping.spec import SweepSpec, build_sweep

EXITS = "early-exit:layers=[1,2,3],length=[2,4]"


def speed(label: str) -> float:
    """Exits after layer 3 are made to be the fastest, with four tokens; all pay a little."""
    options = dict(piece.split("=") for piece in label.partition(":")[2].split(","))
    return 1.0 + 0.05 * int(options["layers"]) + 0.02 * int(options["length"])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def store(runs: Path, *, scale: float, monkeypatch, methods: str = EXITS, done: int = 6) -> Sweep:
    """A sweep of which `done` cells are measured, at `scale` times their speed."""
    known = gain
    monkeypatch.setattr(
        "made_comparisons.gain",
        lambda label: scale * speed(label) if "layers=" in label else known(label),
    )
    spec = SweepSpec(
        name="exits", methods=[methods], workloads=["code"], max_new_tokens=20, baselines=[]
    )
    cells = spec.cells()[:done]
    found = Sweep(spec, "finished", "2026-01-01T10:00:00")
    if cells:
        one = make_comparison(spec.part(cells), sweep="exits")
        result.save(one, runs)
        found.cells = dict.fromkeys(cells, one.comparison_id)
    save_sweep(found, runs)
    return found


def test_the_verdict_names_the_best_setting(runs: Path, monkeypatch) -> None:
    said = reading.verdict(sweep_rows(store(runs, scale=1.0, monkeypatch=monkeypatch), runs))
    assert said.startswith(
        "It pays: early-exit with layers 3 and length 4 is the best of 6 cells, 1.2"
    )
    assert said.endswith("as fast as plain decoding.")


def test_where_nothing_pays_it_is_said_of_all_settings(runs: Path, monkeypatch) -> None:
    said = reading.verdict(sweep_rows(store(runs, scale=0.5, monkeypatch=monkeypatch), runs))
    assert said.startswith(
        "It does not pay at any setting: the best of 6, early-exit with layers 3"
    )


def test_options_that_all_cells_share_are_not_named(runs: Path, monkeypatch) -> None:
    methods = "early-exit:layers=[1,3],length=4"
    found = store(runs, scale=1.0, monkeypatch=monkeypatch, methods=methods, done=2)
    assert "early-exit with layers 3 is the best of 2" in reading.verdict(sweep_rows(found, runs))


def test_a_single_cell_reads_as_a_comparison_does(runs: Path, monkeypatch) -> None:
    found = store(runs, scale=1.0, monkeypatch=monkeypatch, done=1)
    assert reading.verdict(sweep_rows(found, runs)).startswith(
        "It pays: early-exit:layers=1,length=2 decodes"
    )


def test_options_are_explained_in_the_words_of_the_method() -> None:
    said = reading.explained("early-exit", ["layers", "length"])
    assert said.startswith("layers: the target's first layers that draft; length: ")
    assert reading.explained("gone", ["layers"]) == ""


def test_a_report_holds_maps_of_speedup_and_acceptance(runs: Path, monkeypatch) -> None:
    store(runs, scale=1.0, monkeypatch=monkeypatch, done=5)
    report = gather(["exits"], runs)
    assert report.tone == "pays"
    assert report.warnings == ["1 of 6 cells are not measured yet."]
    speedup, acceptance = report.charts
    (drawn,) = speedup.draw("light").data
    assert [[text.lstrip("★ ")[:3] for text in row] for row in drawn.text] == [
        ["1.0", "1.1", "1.1"],
        ["1.1", "1.1", ""],
    ]
    assert speedup.draw("light").layout.xaxis.title.text == "layers"
    assert speedup.draw("dark").layout.yaxis.title.text == "length"
    assert "highest with early-exit:layers=" in speedup.reading
    assert "the target's first layers that draft" in speedup.reading
    (shares,) = acceptance.draw("light").data
    assert {text.lstrip("★ ") for text in shares.text[0]} == {"25 %"}
    assert len(report.tables[0].rows) == 5
    assert "early-exit:layers=[1,2,3],length=[2,4]" in report.commands[1]


def test_it_is_written_like_any_report(runs: Path, monkeypatch, tmp_path: Path) -> None:
    found = store(runs, scale=0.5, monkeypatch=monkeypatch)
    page = write_report(["exits"], tmp_path / "r.html", runs=runs).read_text()
    assert "It does not pay at any setting" in page
    text = write_report(["exits"], tmp_path / "r.md", runs=runs).read_text()
    assert "Speedup of early-exit on code" in text
    with pytest.raises(UserError, match="alone"):
        write_report(["exits", next(iter(found.cells.values()))], tmp_path / "x.html", runs=runs)


def test_a_sweep_without_a_measured_cell_has_no_report(runs: Path, monkeypatch) -> None:
    store(runs, scale=1.0, monkeypatch=monkeypatch, done=0)
    with pytest.raises(UserError, match="no measured cell"):
        gather(["exits"], runs)


def test_the_example_in_the_documentation_is_a_sweep_over_exits() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exits.md").read_text(encoding="utf-8")
    found = build_sweep(tomllib.loads(text.partition("```toml\n")[2].partition("```")[0]))
    assert len(found.cells()) == 1 + 4 * 4
    assert {cell.partition(":")[0] for cell in found.cells()} == {"hf-generate", "early-exit"}
