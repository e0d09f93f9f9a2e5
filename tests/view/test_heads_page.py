"""The Heads page on a scripted handle: train, watch, stop, go on, cards, the way to Run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from measuring_page import done, opened, said, scripted_handle
from scripted_measuring import MeasuringHandle, store_study
from scripted_training import store_head, store_training, training
from scripted_tuning import tune_spec
from streamlit.testing.v1 import AppTest

from engine.errors import UserError
from engine.paths import data_folder
from workbench.jobs import TRAIN, kind_of, under_way
from workbench.measuring import Measuring
from workbench.training.spec import read_spec
from workbench.view.compare_words import ended, what
from workbench.view.heads_form import build_training, small_training


@pytest.fixture(autouse=True)
def handle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MeasuringHandle:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)  # ./runs and ./heads of whoever runs the tests stay out
    return scripted_handle(monkeypatch, tmp_path / "runs")


def page(**address: str) -> AppTest:
    return opened("heads", **address)


def part(name: str) -> AppTest:
    at = page(part=name)
    assert at.segmented_control(key="part").value == name
    return at


def test_first_sight_explains_and_one_button_trains_a_small_one(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    assert "Heads draft without a second model" in said(at)
    assert {"**Medusa**", "**Kangaroo**", "**EAGLE**"} <= {one.value for one in at.markdown}
    assert "Medusa for pycode-target on standard library, 10 minutes" in said(at)
    assert at.button(key="heads/stop").disabled
    at.button(key="heads/small").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.kind, spec.target, spec.minutes) == ("medusa", "pycode-target", 1.0)
    assert all(Path(text).is_dir() for text in spec.texts)
    assert "Training pycode-target-medusa-small: Medusa for pycode-target" in said(at)


def test_train_watch_stop_go_on_and_try_it(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.number_input(key="heads/minutes").set_value(2.0)
    at.button(key="heads/start").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.name, spec.minutes, spec.texts) == ("pycode-target-medusa", 2.0, [])
    assert at.button(key="heads/start").disabled
    handle._began -= 500.0  # as if half the time were over
    at.run()
    assert "% done" in said(at)
    tiles = {one.label: one.value for one in at.metric}
    assert tiles["Tokens per second"] == "900"
    assert tiles["First guess right at +2"] == "38.9%"
    at.button(key="heads/stop").click().run()
    at = done(at, handle)
    assert "Stopped. The checkpoint is kept; it can go on." in said(at)
    assert "Stopped at 50%" in said(at)
    handle._seconds = 0.01
    at.button(key="heads/go-on").click().run()
    at = done(at, handle)
    assert handle.specs[1] == spec
    assert "Finished after 41 k tokens." in said(at)
    assert at.query_params["training"] in (spec.name, [spec.name])
    at.button(key="heads/try").click().run()
    assert not at.exception
    assert at.session_state["method"] == "medusa"
    assert at.session_state["medusa/head"].endswith("heads/pycode-target-medusa/head")
    assert "The spec was taken over." in said(at)


def test_what_was_typed_reaches_the_training(handle: MeasuringHandle, tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    at = page()
    at.session_state["heads/advanced"] = True
    at.segmented_control(key="heads/kind").set_value("eagle")
    at.segmented_control(key="heads/source").set_value("Files")
    at.segmented_control(key="heads/budget").set_value("Tokens").run()
    at.text_area(key="heads/texts").set_value(f"{tmp_path / 'sources'}\n\n")
    at.number_input(key="heads/tokens").set_value(50_000)
    at.text_input(key="heads/name").set_value("mine")
    at.number_input(key="heads/written").set_value(0)
    at.number_input(key="heads/recipe/rows").set_value(2)
    at.number_input(key="heads/eagle/steps").set_value(3)
    at.run()
    at.button(key="heads/start").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.kind, spec.name, spec.tokens, spec.written) == ("eagle", "mine", 50_000, 0)
    assert spec.texts == [str(tmp_path / "sources")]
    assert (spec.recipe, spec.options) == ({"rows": 2}, {"steps": 3})


def test_no_such_text_is_a_sentence_and_nothing_is_started(handle: MeasuringHandle) -> None:
    at = page()
    at.segmented_control(key="heads/source").set_value("Files").run()
    assert "No text is named" in said(at)
    at.text_area(key="heads/texts").set_value("/no/such/text").run()
    at.button(key="heads/start").click().run()
    assert not handle.specs
    assert "There is no file or folder /no/such/text." in at.error[0].value.replace("\\", "")


@pytest.mark.parametrize(
    "message",
    [
        "At step 7 the loss was nan: training has stopped. No checkpoint had been written yet.",
        "The checkpoint x.pt cannot be written (No space left on device).",
    ],
)
def test_a_failure_is_a_sentence_on_the_page(message: str) -> None:
    store_training("failed", 0.5, message=message)
    at = page()
    assert message in "\n".join(one.value.replace("\\", "") for one in at.error)
    assert not at.button(key="heads/go-on").disabled


def test_one_from_a_terminal_is_watched_and_stopped_there() -> None:
    store_training("running", 0.5, from_terminal=True)
    at = page()
    assert "Started elsewhere, as process" in said(at)
    assert "Training: 50% done" in said(at)


def test_a_killed_one_says_so_and_how_it_goes_on() -> None:
    store_training("killed", 0.25, from_terminal=True)
    at = page()
    assert "its process is gone" in said(at)
    assert "the same command goes on with it" in said(at)


def test_another_page_says_where_the_training_is(handle: MeasuringHandle) -> None:
    handle._seconds = 1000.0
    at = page()
    at.button(key="heads/start").click().run()
    at.switch_page("pages/run.py").run()
    assert not at.exception
    assert "The training pycode-target-medusa is under way" in said(at)
    assert "See the Heads page" in said(at)
    at.switch_page("pages/tune.py").run()
    assert "Training pycode-target-medusa:" not in said(at)


def test_cards_say_what_fits_and_what_does_not(tmp_path: Path) -> None:
    store_training("finished")
    store_head(tmp_path / "heads" / "old", target={"name": "pycode-target", "content_hash": "0"})
    store_head(tmp_path / "heads" / "far", target={"name": "elsewhere", "content_hash": "1"})
    (store_head(tmp_path / "heads" / "bad") / "head.json").write_text("{")
    at = part("heads")
    told = said(at)
    assert "Its target pycode-target has changed since" in told
    assert "Its target elsewhere is not on this machine" in told
    assert "cannot be read as a head's card" in told
    assert "40,960 tokens, about 1 minute" in told
    shipped = len(list((data_folder() / "heads").glob("*/head.json")))
    titles = [one.value for one in at.markdown if one.value.startswith("**")]
    assert titles[shipped] == "**pycode\\-target\\-medusa**", "named after its training"
    tried = [button for button in at.button if str(button.key).endswith("/try")]
    assert [not button.disabled for button in tried][shipped:] == [True, False, False, False]
    tried[shipped].click().run()
    assert not at.exception
    assert at.session_state["medusa/head"].endswith("heads/pycode-target-medusa/head")


def test_searches_of_the_target_alone_stand_on_this_page_too() -> None:
    store_study(tune_spec())  # of dynamic-tree
    at = part("searches")
    assert "No study is stored yet" in said(at)
    assert "draftree tune layer-skip" in said(at)


def test_a_name_that_is_taken_gets_a_number() -> None:
    store_training("finished")
    fields = {"kind": "medusa", "target": "pycode-target", "source": "Standard library",
              "texts": [], "workload": None, "budget": "Minutes", "minutes": 1.0, "tokens": None,
              "options": {}, "recipe": {}, "dtype": "float32", "device": "cpu", "seed": 0,
              "threads": None, "written": 0, "name": ""}  # fmt: skip
    assert build_training(fields).name == "pycode-target-medusa-2"
    assert build_training(fields | {"name": "pycode-target-medusa"}).name == "pycode-target-medusa"
    with pytest.raises(UserError, match="Name is 'a/b'; use up to 64"):
        build_training(fields | {"name": "a/b"})
    with pytest.raises(UserError, match="The target model is empty"):
        build_training(fields | {"target": ""})
    assert small_training().name == "pycode-target-medusa-small"


def test_words_and_kind_of_a_training() -> None:
    spec = training(kind="kangaroo", workload="code", minutes=None, tokens=5000)
    assert kind_of(spec) == TRAIN
    assert under_way(spec) == "The training pycode-target-medusa is under way"
    assert what(spec).endswith("Kangaroo for pycode-target on code, 5,000 tokens")
    assert "on asyncio, collections, 6 more, 1 minute" in what(small_training())
    state = Measuring(kind=TRAIN, status="failed", error="No text.", wrong_input=True)
    assert ended(state) == ("error", "The training was not started", "No text.")
    folder = store_training("stopped", 0.3, spec=spec)
    assert read_spec(folder) == spec
    assert json.loads((folder / "spec.json").read_text())["kind"] == "kangaroo"
