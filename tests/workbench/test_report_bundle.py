"""Reports as files: what is in each, what may be left out, and what stands there without Chrome."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from pyarrow import parquet
from query_runs import write_run

from engine.errors import UserError
from workbench.report import images
from workbench.report.bundle import FORMS, Asked, file_name, handed, picture, pictures
from workbench.report.content import SECTIONS

HOSTILE = "</title><script>window.owned=1</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("bundled")
    one = write_run(folder, method="speculative", steps=2)
    other = write_run(folder, method="dynamic-tree", options={"nodes": 8}, steps=3)
    return folder, one, other


@pytest.fixture
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTREE_CHROME", "/no/such/browser")


def unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_everything_of_two_runs(runs, no_browser):
    folder, one, other = runs
    file = handed(Asked((one, other)), "all", runs=folder)
    assert file.name == "report-2-runs.zip"
    found = unpacked(file.content)
    assert found["report.html"].startswith(b"<!doctype html>")
    assert found["report.md"].startswith(b"# Report on 2 runs")
    for run_id, steps in ((one, 2), (other, 3)):
        about = json.loads(found[f"{run_id}/run.json"])
        assert about["summary"]["steps"] == steps
        assert about["command"].startswith("draftree run ")
        assert about["requests"][0]["prompt"] == "once"
        table = parquet.read_table(io.BytesIO(found[f"{run_id}/step.parquet"]))
        assert table.num_rows == steps
        assert found[f"{run_id}/node.csv"].count(b"\n") == 1 + 7 * steps
    assert found["pictures/tree-1.svg"].startswith(b"<svg ")
    assert b"Chrome or Chromium" in found["pictures/charts are missing.txt"]


@pytest.mark.parametrize("form", FORMS)
def test_names_fit_what_is_in_the_files(form: str, runs, no_browser):
    folder, one, _ = runs
    file = handed(Asked((one,)), form, runs=folder)
    assert file.name == file_name(Asked((one,)), form)
    if file.name.endswith(".zip"):
        assert unpacked(file.content)
    elif file.name == "run.json":
        assert json.loads(file.content)["run"] == one
    else:
        assert one in file.content.decode()


def test_sections_and_title_are_as_chosen(runs):
    folder, one, _ = runs
    bare = handed(Asked((one,), HOSTILE, ()), "html", runs=folder).content.decode()
    for gone in ("What was measured", "<h2>Charts", "Sample output", "Draft trees", "plotly.js v"):
        assert gone not in bare
    for kept in ("<h2>Results", "<h2>Run it again", "draftree run --method speculative"):
        assert kept in bare
    assert "<script>window.owned" not in bare
    assert "&lt;/title&gt;&lt;script&gt;window.owned=1" in bare
    whole = Asked((one,), "", tuple(SECTIONS)).report(folder)
    assert whole.charts
    assert whole.trees
    assert whole.sample
    assert Asked((one,), "", ("trees",)).report(folder).trees
    markdown = handed(Asked((one,), "Mine", ("charts",)), "markdown", runs=folder).content.decode()
    assert markdown.startswith("# Mine\n")
    assert "## In words" in markdown
    assert "What was measured" not in markdown


def test_one_picture_at_a_time(runs, no_browser):
    folder, one, _ = runs
    named = pictures(Asked((one,)), folder)
    at = next(number for number, (_, is_tree) in enumerate(named) if is_tree)
    assert picture(Asked((one,)), at, "svg", runs=folder).startswith(b"<svg ")
    with pytest.raises(UserError, match="none was found"):
        picture(Asked((one,)), 0, "svg", runs=folder)
    with pytest.raises(UserError, match="none was found"):
        picture(Asked((one,)), at, "png", runs=folder)


def test_a_browser_that_does_not_draw_is_named(runs, tmp_path: Path, monkeypatch):
    folder, one, _ = runs
    dud = tmp_path / "dud"
    dud.write_text("#!/bin/sh\nexit 1\n")
    dud.chmod(0o755)
    monkeypatch.setenv("DRAFTREE_CHROME", str(dud))
    assert images.why_not() == ""
    with pytest.raises(UserError, match="dud drew 0 of 1 charts"):
        picture(Asked((one,)), 0, "svg", runs=folder)


def test_a_run_that_is_gone_is_a_sentence(runs):
    with pytest.raises(UserError, match="no run"):
        handed(Asked(("29990101",)), "html", runs=runs[0])


@pytest.mark.browser
@pytest.mark.slow
def test_charts_are_drawn_by_the_browser_of_this_machine(runs, monkeypatch):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on PATH")
    monkeypatch.delenv("DRAFTREE_CHROME", raising=False)
    folder, one, _ = runs
    charts = Asked((one,)).report(folder).charts[:2]
    vectors = images.chart_images(charts, form="svg", theme="dark")
    assert all(b"<svg" in one[:200] and b"</svg>" in one[-20:] for one in vectors)
    assert vectors[0] != vectors[1]
    assert images.chart_images(charts[:1], form="png")[0][:4] == b"\x89PNG"
