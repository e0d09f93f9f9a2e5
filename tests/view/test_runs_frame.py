"""The pickers of stored runs: the table behind them, and the widgets in a script of their own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from workbench.store.index import RunEntry, write_entry
from workbench.store.schema import RunStatus
from workbench.view.runs_frame import COLUMNS, places, run_label, runs_frame, stored_runs


def entry(number: int, **changes: object) -> RunEntry:
    fields: dict = {
        "run_id": f"20260101-0000{number:02}-00{number:02}",
        "status": RunStatus.FINISHED,
        "started": f"2026-01-01T00:00:{number:02}.000+00:00",
        "spec": {
            "method": "dynamic-tree", "options": {"max_depth": 4}, "prompt": "def f(x):\n",
            "target": "/models/some-target", "draft": "some-draft",
        },
        "summary": {
            "steps": 2, "kept": 5, "tokens_per_step": 2.5, "tokens_per_second": 80.0,
        },
    }  # fmt: skip
    return RunEntry(**fields | changes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path))
    return tmp_path


def test_a_line_per_run_in_the_given_order():
    frame = runs_frame([entry(2), entry(1, status=RunStatus.FAILED, summary={})])
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame.index) == [entry(2).run_id, entry(1).run_id]
    first, second = frame.iloc[0], frame.iloc[1]
    assert first["options"] == "max depth 4"
    assert first["models"] == "some-target + some-draft"
    assert (first["prompt"], first["tokens"]) == ("def f(x)", 5)
    assert pd.isna(second["tokens_per_step"])
    assert second["status"] == "failed"
    assert runs_frame([]).empty


def test_labels_are_unique_and_safe():
    spec = {"method": "m\u202e", "prompt": "\x1b[31m<b>evil"}
    labels = {run_label(entry(number, spec=spec)) for number in range(3)}
    assert len(labels) == 3
    assert all("\u202e" not in label and "\x1b" not in label for label in labels)


def test_a_bare_entry_has_a_label():
    assert run_label(entry(1, spec={}, summary={}, started="")).startswith("unknown")


def test_the_index_is_read_again_when_it_changes(folder: Path):
    assert stored_runs(folder) == []
    write_entry(entry(1), folder)
    first = stored_runs(folder)
    assert [found.run_id for found in first] == [entry(1).run_id]
    assert stored_runs(folder) is first
    write_entry(entry(2), folder)
    assert [found.run_id for found in stored_runs(folder)] == [entry(2).run_id, entry(1).run_id]


def test_places_leave_out_what_is_gone():
    assert places(["c", "b", "a"], ["a", "x", "c"]) == [0, 2]


def script() -> None:
    import streamlit as st

    from pages.parts.run_picker import pick_run, pick_runs

    st.session_state["one"] = pick_run("run")
    st.session_state["several"] = pick_runs("many", most=1)


def test_with_nothing_stored_the_pickers_say_what_to_do(folder: Path):
    app = AppTest.from_function(script).run()
    assert not app.exception
    assert app.session_state["one"] is None
    assert app.session_state["several"] == []
    assert any("press Run" in block.value for block in app.markdown)


def test_the_newest_run_is_chosen_and_named_in_the_address(folder: Path):
    for number in (1, 2):
        write_entry(entry(number), folder)
    app = AppTest.from_function(script).run()
    assert not app.exception
    assert app.session_state["one"] == entry(2).run_id
    assert app.query_params["run"] == entry(2).run_id
    app.selectbox[0].select_index(1).run()
    assert app.session_state["one"] == entry(1).run_id
    assert app.query_params["run"] == entry(1).run_id


def test_the_address_bar_chooses_and_a_wrong_one_is_a_sentence(folder: Path):
    for number in (1, 2):
        write_entry(entry(number), folder)
    app = AppTest.from_function(script)
    app.query_params["run"] = entry(1).run_id
    app.run()
    assert app.session_state["one"] == entry(1).run_id
    app = AppTest.from_function(script)
    app.query_params["run"] = "nothing-like-it"
    app.run()
    assert app.session_state["one"] == entry(2).run_id
    assert "nothing" in app.warning[0].value
