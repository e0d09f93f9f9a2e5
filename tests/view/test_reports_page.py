"""The Reports page: empty at first, then a report of chosen runs in a sandbox, with its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "workbench"))

from query_runs import write_run  # noqa: E402


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import streamlit as st

    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path))
    st.cache_data.clear()
    return tmp_path


def page() -> AppTest:
    return AppTest.from_file(str(ROOT / "pages" / "reports.py"), default_timeout=60)


def test_with_nothing_stored_it_says_what_to_do(runs: Path):
    at = page().run()
    assert not at.exception
    assert any("press Run" in text.value for text in at.markdown)
    at.get_by_key("reports/source").set_value("Comparison").run()
    assert "No comparison is stored yet" in at.info[0].value
    assert not at.get("bidi_component")


def test_until_a_run_is_chosen_there_is_no_report(runs: Path):
    write_run(runs, method="speculative", steps=1)
    at = page().run()
    assert not at.exception
    assert any("Choose one run" in caption.value for caption in at.caption)
    assert not at.get("bidi_component")


def test_a_chosen_run_is_reported(runs: Path):
    run_id = write_run(runs, method="speculative", steps=2, prompt="</script><b>x</b>")
    at = page()
    at.session_state["reports/chosen"] = [run_id]
    at.run()
    assert not at.exception
    (shown,) = at.get("bidi_component")
    html = json.loads(shown.proto.json)["html"]
    assert html.startswith("<!doctype html>")
    assert "Content-Security-Policy" in html
    assert run_id in html
    at.text_input(key="reports/title").set_value("<i>Mine</i>").run()
    (shown,) = at.get("bidi_component")
    assert "&lt;i&gt;Mine&lt;/i&gt;" in json.loads(shown.proto.json)["html"]


def test_a_run_that_cannot_be_read_is_a_sentence(runs: Path):
    run_id = write_run(runs, method="speculative", steps=1)
    (runs / f"{run_id}.duckdb").write_bytes(b"no database")
    at = page()
    at.session_state["reports/chosen"] = [run_id]
    at.run()
    assert not at.exception
    assert "cannot be read" in at.error[0].value


def test_the_frame_of_the_preview_has_no_origin_of_the_app():
    html = (ROOT / "workbench/view/report_component/preview.html").read_text(encoding="utf-8")
    assert 'sandbox="allow-scripts"' in html
    assert "allow-same-origin" not in html
