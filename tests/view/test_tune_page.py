"""The Tune page on a scripted handle: start, cancel, go on, and the way to the Run page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from measuring_page import done, opened, said, scripted_handle
from scripted_measuring import MeasuringHandle, store_study
from scripted_tuning import tune_spec
from streamlit.testing.v1 import AppTest

from engine.errors import UserError
from workbench.measuring import Measuring
from workbench.spec import RunSpec
from workbench.specfile import parse_spec
from workbench.tuning.spec import TAU
from workbench.tuning.study import load_study
from workbench.view.compare_words import ended, what
from workbench.view.run_spec import widgets_of
from workbench.view.tune_form import build_study, cost, under_free_name
from workbench.view.tune_study import searched, trial_frame

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def handle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MeasuringHandle:
    return scripted_handle(monkeypatch, tmp_path / "runs")


def page(**address: str) -> AppTest:
    return opened("tune", **address)


def test_first_sight_says_what_to_press_and_what_it_costs() -> None:
    at = page()
    assert "No study is stored yet" in said(at)
    assert "At most 624 decodes of 64 tokens" in said(at)
    assert at.button(key="tune/stop").disabled


def test_from_tune_to_a_verdict_and_to_the_run_page(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.number_input(key="tune/trials").set_value(12)
    at.button(key="tune/start").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.method, spec.workload, spec.trials, spec.limit) == ("dynamic-tree", "code", 12, 8)
    assert spec.name == "dynamic-tree-code"
    assert "Tuning dynamic-tree on code: 12 trials" in said(at)
    assert at.button(key="tune/start").disabled
    handle._seconds = 0.01
    at = done(at, handle)
    study = load_study("dynamic-tree-code")
    assert study.best is not None
    assert "as fast as the defaults" in said(at)
    assert "12 of 12 trials" in said(at)
    at.button(key="tune/use").click().run()
    assert not at.exception
    assert at.session_state["dynamic-tree/nodes"] == study.best.options["nodes"]
    assert at.session_state["method"] == "dynamic-tree"


def test_cancel_keeps_trials_and_go_on_finishes(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.number_input(key="tune/trials").set_value(10)
    at.button(key="tune/start").click().run()
    at.button(key="tune/stop").click().run()
    at = done(at, handle)
    assert "Stopped. Trials that were finished are kept; it can go on." in said(at)
    assert "3 of 10 trials: 3 measured; cancelled" in said(at)
    handle._seconds = 0.01
    at.button(key="tune/go-on").click().run()
    at = done(at, handle)
    assert "10 of 10 trials" in said(at)
    assert handle.specs[1].name == handle.specs[0].name


def test_another_page_says_where_the_study_is(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.button(key="tune/start").click().run()
    for name in ("run", "compare"):
        at.switch_page(f"pages/{name}.py").run()
        assert not at.exception
        assert "The study dynamic-tree-code is under way" in said(at)
        assert "See the Tune page" in said(at)
        assert "Tuning dynamic-tree" not in said(at)


def test_wrong_input_from_the_worker_is_a_sentence() -> None:
    state = Measuring(kind="tune", status="failed", error="No option.", wrong_input=True)
    assert ended(state) == ("error", "The study was not started", "No option.")
    assert what(tune_spec(workloads=["my.txt"])) == "Tuning dynamic-tree on my.txt: 12 trials"


def test_the_run_page_takes_a_study_by_its_address() -> None:
    store_study(tune_spec())
    best = load_study("trees").best
    assert best is not None
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    at.query_params["spec"] = "trees"
    at.run()
    assert not at.exception
    assert at.number_input(key="dynamic-tree/nodes").value == best.options["nodes"]
    assert "Study trees was taken over." in said(at)
    at.number_input(key="dynamic-tree/nodes").set_value(11).run()
    assert at.number_input(key="dynamic-tree/nodes").value == 11, "taken once, not at every run"
    at.query_params["spec"] = "absent"
    at.run()
    assert "There is no study 'absent'" in said(at)


FIELDS = {"method": "dynamic-tree", "workload": "code", "objective": "tokens/s", "trials": 5,
          "limit": 2, "target": "pycode-target", "name": "", "max_new_tokens": 64}  # fmt: skip


def test_the_form_pins_and_narrows_by_what_is_typed() -> None:
    spec = build_study(FIELDS, {"nodes": "4..8", "depth": " 3 ", "policy": "[a,b]", "width": ""})
    assert spec.fix == {"depth": "3"}
    assert spec.space == {"nodes": "4..8", "policy": "[a,b]"}
    with pytest.raises(UserError, match="target model is empty"):
        build_study(FIELDS | {"target": ""}, {})
    with pytest.raises(UserError, match="Name is 'a/b'"):
        build_study(FIELDS | {"name": "a/b"}, {})
    assert cost(spec, prompts=2, pace=32.0).startswith(
        "At most 56 decodes of 64 tokens; about 2 minutes"
    )
    assert cost(spec.model_copy(update={"objective": TAU}), prompts=2, pace=None).startswith(
        "At most 46 decodes"
    )


def test_a_name_that_is_taken_gets_a_number_and_an_unfinished_study_goes_on() -> None:
    first = tune_spec(trials=6)
    store_study(first, trials=2)
    assert under_free_name(first).name == "trees", "trials are left"
    assert under_free_name(first.model_copy(update={"limit": 2})).name == "trees-2"
    store_study(first)
    assert under_free_name(first).name == "trees-2", "all trials are made"


def test_frames_of_a_study() -> None:
    store_study(tune_spec(trials=15))
    study = load_study("trees")
    frame = trial_frame(study)
    assert searched(study) == ["nodes", "depth"]
    assert list(frame["trial"]) == list(range(1, 16))
    best_so_far = frame["best_so_far"].dropna()
    assert (best_so_far.diff().dropna() >= 0).all()
    assert frame["best"].sum() == 1
    assert best_so_far.iloc[-1] == study.best.value


def test_a_spec_becomes_widgets_and_what_has_no_place_is_named() -> None:
    text = {"method": "speculative", "options": {"length": "7"}, "workload": "edit",
            "temperature": 0.4, "batch": 4, "limit": 3, "stop": ["x"]}  # fmt: skip
    taken = widgets_of(parse_spec(json.dumps(text).encode(), where="f"))
    assert taken.widgets["speculative/length"] == 7
    assert (taken.widgets["source"], taken.widgets["temperature"]) == ("edit", 0.4)
    assert taken.widgets["pair"] == "Embedded pair"
    assert taken.widgets["max_new_tokens"] == 128, "left out: the default"
    assert taken.left_out == ["batch", "stop"]
    own = widgets_of(RunSpec(prompt="a", target="./m", draft=None, method="suffix").model_dump())
    assert (own.widgets["source"], own.widgets["own_prompt"]) == ("own", "a")
    assert (own.widgets["pair"], own.widgets["target"]) == ("Other models", "./m")
    with pytest.raises(UserError, match="takes temperature from 0 to 2"):
        widgets_of({"temperature": 3.0})
    with pytest.raises(UserError, match=r"takes top_p from 0.01"):
        widgets_of({"top_p": 0.001})
    with pytest.raises(UserError, match="names no draft model, and speculative needs one"):
        widgets_of({"method": "speculative", "draft": None})
    several = widgets_of({"method": "static-tree", "other_drafts": ["./b"]}).widgets
    assert (several["pair"], several["other_drafts"]) == ("Other models", ["./b"])
