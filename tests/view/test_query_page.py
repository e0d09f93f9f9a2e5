"""The Query page: what it says with nothing stored, what an example answers, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "workbench"))

from query_runs import write_run  # noqa: E402

from workbench.query import EXAMPLES  # noqa: E402


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import streamlit as st

    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path))
    st.cache_data.clear()
    return tmp_path


def page() -> AppTest:
    return AppTest.from_file(str(ROOT / "pages" / "query.py"), default_timeout=60).run()


def answered(at: AppTest) -> AppTest:
    at.session_state["query/running"].wait(60)
    return at.run()


def test_with_nothing_stored_it_says_what_to_do(runs: Path):
    at = page()
    assert not at.exception
    assert any("press Run" in text.value for text in at.markdown)
    assert not at.text_area


def test_an_example_is_one_click(runs: Path):
    write_run(runs, method="speculative", steps=2)
    at = page()
    example = next(one for one in EXAMPLES if one.name == "Acceptance by depth")
    at.button(key=f"example/{example.name}").click().run()
    at = answered(at)
    assert not at.exception
    assert at.text_area(key="query/sql").value == example.sql
    assert any(caption.value.startswith("2 rows from 1 run") for caption in at.caption)
    frame = at.dataframe[-1].value
    assert frame["share"].tolist() == [1.0, 0.5]
    assert at.query_params["sql"] == example.sql


def test_an_error_is_shown_without_its_markup(runs: Path):
    write_run(runs, method="speculative", steps=1)
    at = page()
    at.text_area(key="query/sql").set_value('SELECT "<img src=x>" FROM run').run()
    at.button(key="query/run").click().run()
    at = answered(at)
    assert "\\<img" in at.error[0].value
    at.text_area(key="query/sql").set_value("DROP TABLE run").run()
    at.button(key="query/run").click().run()
    at = answered(at)
    assert "Only SELECT" in at.error[0].value


def test_a_query_in_the_address_is_shown_and_not_run(runs: Path):
    write_run(runs, method="speculative", steps=1)
    at = AppTest.from_file(str(ROOT / "pages" / "query.py"), default_timeout=60)
    at.query_params["sql"] = "SELECT 7 AS seven"
    at.run()
    assert at.text_area(key="query/sql").value == "SELECT 7 AS seven"
    assert "query/running" not in at.session_state


def test_the_tables_are_explained(runs: Path):
    write_run(runs, method="speculative", steps=1)
    at = page()
    assert not at.dataframe
    at.session_state["query/tables"] = True
    at.run()
    assert "Column" in at.dataframe[0].value.columns
    assert json.dumps(at.dataframe[0].value["Meaning"].tolist()).count(".") >= 10
