"""The Compare page on a scripted handle: start, progress, cancel, verdict, sweeps, stored runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring_page import done, opened, said, scripted_handle
from scripted_measuring import MeasuringHandle, store, store_sweep
from streamlit.testing.v1 import AppTest

from engine.errors import UserError
from workbench.comparing import result
from workbench.comparing.result import CompareSpec
from workbench.spec import RunSpec
from workbench.sweeping.spec import SweepSpec

ROOT = Path(__file__).resolve().parents[2]
SPEC = CompareSpec(
    methods=["dynamic-tree:nodes=[4,6]"], baselines=["hf-generate"], workloads=["code"], limit=3
)
SWEEP = SweepSpec(name="size", methods=["dynamic-tree:nodes=[4,6,8],depth=[3,4]"],
                  workloads=["code"], baselines=[], limit=3)  # fmt: skip


@pytest.fixture(autouse=True)
def handle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MeasuringHandle:
    return scripted_handle(monkeypatch, tmp_path / "runs")


def page(**address: str) -> AppTest:
    return opened("compare", **address)


def test_first_sight_says_what_to_press_and_what_it_costs() -> None:
    at = page()
    assert "No comparison is stored yet" in said(at)
    assert "6 arms × 4 prompts × 3 repeats = 72 decodes of 64 tokens." in said(at)
    assert not at.button(key="compare/start").disabled
    assert at.button(key="compare/stop").disabled


def test_from_measure_to_a_verdict(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.multiselect(key="compare/arms").set_value(["dynamic-tree:nodes=[4,6]"])
    at.number_input(key="compare/limit").set_value(3)
    at.button(key="compare/start").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.methods, spec.limit, spec.repeats) == (["dynamic-tree:nodes=[4,6]"], 3, 3)
    assert spec.baselines == ["hf-generate", "hf-assisted"]
    assert "Comparing 2 methods on code" in said(at)
    assert at.button(key="compare/start").disabled
    assert not at.button(key="compare/stop").disabled
    handle._seconds = 0.01
    at = done(at, handle)
    assert "It pays: dynamic-tree:nodes=6, the fastest of the methods, decodes 1.60×" in said(at)
    (stored,) = result.comparison_ids()
    assert at.query_params["comparison"] in (stored, [stored])
    assert not at.button(key="compare/start").disabled


def test_more_draft_models_reach_the_comparison(handle: MeasuringHandle) -> None:
    at = page()
    at.multiselect(key="compare/arms").set_value(["static-tree:drafts=[1,2]"])
    at.multiselect(key="compare/other_drafts").set_value([" ./my-draft ", ""]).run()
    at.button(key="compare/start").click().run()
    assert not at.exception
    assert handle.specs[0].other_drafts == ["./my-draft"]


def test_cancel_keeps_what_was_complete(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.button(key="compare/start").click().run()
    at.button(key="compare/stop").click().run()
    at = done(at, handle)
    assert "Stopped. What was complete is kept." in said(at)
    assert "The comparison was stopped" in said(at), "the report says it too"


def test_a_new_session_sees_what_is_under_way(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    handle.start(SPEC)
    at = page()
    assert "Comparing 2 methods on code" in said(at)
    assert at.button(key="compare/start").disabled
    at.button(key="compare/stop").click().run()
    assert not handle.active


def test_both_pages_name_the_others_job(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    handle.start(SPEC)
    run = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    assert not run.exception
    assert "A comparison of 2 arms on code is under way" in said(run)
    assert run.button(key="run").disabled
    assert run.button(key="stop").disabled, "it is not the run's to stop"
    handle.stop()
    run.run()
    assert not run.button(key="run").disabled
    handle._load_s = 1000.0
    handle.start(RunSpec(prompt="x"))
    at = page()
    assert "A run of dynamic-tree is under way" in said(at)
    assert at.button(key="compare/start").disabled
    assert at.button(key="compare/stop").disabled


def test_a_dead_worker_and_a_refusal_are_sentences(
    handle: MeasuringHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle._seconds = 1000.0
    at = page()
    at.button(key="compare/start").click().run()
    handle.die()
    at.run()
    assert "died of SIGKILL" in said(at)

    def refuse(spec: object) -> None:
        raise UserError("No **bold** <img>.")

    monkeypatch.setattr(handle, "start", refuse)
    at.button(key="compare/start").click().run()
    assert "No \\*\\*bold\\*\\* \\<img\\>\\." in [error.value for error in at.error]


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ([], "No method is chosen"),
        (["nope"], "Method 'nope' is unknown"),
        (["dynamic-tree:nodes=[4"], "without its other half"),
    ],
)
def test_what_cannot_be_measured_is_said_and_not_started(
    handle: MeasuringHandle, arms: list[str], reason: str
) -> None:
    at = page()
    at.multiselect(key="compare/arms").set_value(arms).run()
    assert reason in said(at)
    at.button(key="compare/start").click().run()
    assert reason in "\n".join(error.value for error in at.error).replace("\\", "")
    assert handle.specs == []


def test_presets_and_the_address_of_a_comparison() -> None:
    older, newer = store(SPEC), ""
    while newer in ("", older):
        newer = store(SPEC.model_copy(update={"methods": ["speculative"]}))
    at = page(comparison=older)
    assert "dynamic-tree:nodes=6" in said(at)
    at.button(key="preset/Trees by size").click().run()
    assert at.multiselect(key="compare/arms").value == ["dynamic-tree:nodes=[2,4,6,8,12,16]"]
    assert "9 arms" in said(at)
    gone = page(comparison="compare-1999")
    assert "There is no comparison 'compare-1999'" in said(gone)


def test_missing_steps_leave_verdict_and_figures() -> None:
    store(SPEC)
    at = page()
    assert "Charts of single steps are missing" in said(at)
    assert "It pays" in said(at)


def test_a_sweep_from_the_form(handle: MeasuringHandle) -> None:
    at = page(show="Sweeps")
    assert "No sweep is stored yet" in said(at)
    at.button(key="compare/start").click().run()
    (spec,) = handle.specs
    assert isinstance(spec, SweepSpec)
    assert spec.name == "dynamic-tree-nodes-depth"
    at = done(at, handle)
    assert "10 of 10 cells measured" in said(at)
    assert "It pays: dynamic-tree with nodes 6 and depth 4 is the best of 9 cells" in said(at)
    assert len(at.get("plotly_chart")) == 1
    assert "Nodes: " in said(at)
    at.get_by_key("sweep/value").set_value("acceptance_rate").run()
    assert "Acceptance rate is highest with" in said(at)


def test_a_sweep_that_was_stopped_goes_on(handle: MeasuringHandle) -> None:
    store_sweep(SWEEP, "cancelled", done=2)
    at = page(sweep="size")
    assert "2 of 6 cells measured; cancelled" in said(at)
    at.button(key="sweep/go-on").click().run()
    at = done(at, handle)
    assert handle.specs == [SWEEP]
    assert "6 of 6 cells measured" in said(at)
    at.selectbox(key="sweep/y/nodes/nodes-depth").set_value("nothing: a line").run()
    assert "Each shows the best over depth" in said(at)
    at.get_by_key("sweep/value").set_value("tokens_per_step").run()
    assert not at.exception


def test_one_cell_is_no_sweep() -> None:
    at = page(show="Sweeps")
    at.multiselect(key="sweep/arms").set_value(["dynamic-tree"]).run()
    assert "One cell is no sweep" in said(at)


def test_stored_runs_without_any_say_what_to_do() -> None:
    at = page(show="Stored runs")
    assert "No runs are stored yet" in said(at)


def test_a_stored_experiment_is_measured_or_taken_into_the_form(
    handle: MeasuringHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DRAFTREE_MODELS", str(tmp_path / "mine"))
    handle._seconds = 1000.0
    at = page()
    at.session_state["compare/experiments"] = True
    at.run()
    assert "All models are on this machine." in said(at)
    at.selectbox(key="compare/experiment").set_value("gpt2-xl").run()
    assert "The target openai-community/gpt2-xl is not on this machine." in said(at)
    assert at.button(key="compare/experiment/start").disabled
    at.button(key="compare/experiment/take").click().run()
    assert not at.exception
    assert at.text_input(key="compare/target").value == "openai-community/gpt2-xl"
    assert at.multiselect(key="compare/caches").value == [True, False]
    at.selectbox(key="compare/experiment").set_value("embedded-pair").run()
    at.button(key="compare/experiment/start").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.target, spec.caches) == ("pycode-target", [True, False])
    assert spec.dtypes == ["float32", "bfloat16"]
