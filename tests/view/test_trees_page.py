"""The Trees and Race pages without a browser: what they show, start and say when they cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranked_runs import RANKS, write_ranks, write_run
from scripted_runs import FakeHandle
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import streamlit as st

    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DRAFTREE_CACHE", str(tmp_path / "cache"))
    from pages.parts import settings as module

    fake = FakeHandle(steps=6, step_s=0.01, load_s=0.05)
    monkeypatch.setattr(module.settings, "make_handle", lambda: fake)
    st.cache_resource.clear()
    st.cache_data.clear()
    return tmp_path / "runs"


def page(name: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "pages" / f"{name}.py"), default_timeout=60)
    for key, value in query.items():
        at.query_params[key] = value
    return at.run()


def payload(at: AppTest) -> dict:
    (view,) = at.get("bidi_component")
    return json.loads(view.proto.json)


@pytest.mark.parametrize("name", ["trees", "race"])
def test_nothing_stored_says_what_to_do(runs: Path, name: str):
    at = page(name)
    assert not at.exception
    assert any("No runs are stored yet" in block.value for block in at.markdown)


def test_the_newest_run_that_can_be_asked_is_shown(runs: Path):
    run = write_run(runs)
    write_run(runs, temperature=0.8, verify="multi-step")
    at = page("trees")
    assert not at.exception
    shown = payload(at)
    assert shown["run"] == run
    assert not shown["busy"]
    assert any(f"of {len(RANKS)} tokens" in caption.value for caption in at.caption)
    assert at.button(key="trees/complete")


def test_exact_ranks_need_no_completion(runs: Path, tmp_path: Path):
    run = write_run(runs)
    write_ranks(tmp_path / "cache", run)
    at = page("trees", run=run)
    assert payload(at)["known"] == len(RANKS)
    assert not [button for button in at.button if button.key == "trees/complete"]


def test_a_sampled_run_offers_both_ways_of_choosing_children(runs: Path):
    write_run(runs, temperature=0.8)
    at = page("trees")
    assert not at.exception
    choice = at.get_by_key("trees/children")
    assert choice.value == "coupled"


def test_one_run_of_a_prompt_is_no_race(runs: Path):
    write_run(runs)
    at = page("race")
    assert not at.exception
    assert "two runs of one prompt" in at.info[0].value


def test_runs_of_one_prompt_race_and_others_can_be_chosen(runs: Path):
    first = [write_run(runs, ""), write_run(runs)]
    at = page("race")
    assert not at.exception
    assert [lane["run"] for lane in payload(at)["lanes"]] == first
    at.multiselect(key="lanes").set_value(first[:1]).run()
    assert not at.get("bidi_component")
    assert "2 to 4" in at.info[0].value


def test_another_prompt_brings_its_own_runs(runs: Path):
    of_prompt = [
        {write_run(runs, "", prompt=prompt), write_run(runs, prompt=prompt)}
        for prompt in ("one", "two")
    ]
    at = page("race")
    shown = {lane["run"] for lane in payload(at)["lanes"]}
    assert shown in of_prompt
    at.selectbox(key="race").select_index(1).run()
    assert not at.exception
    (other,) = [group for group in of_prompt if group != shown]
    assert {lane["run"] for lane in payload(at)["lanes"]} == other
