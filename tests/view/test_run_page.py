"""The Run page on a scripted handle: what it shows, what it starts, what it says when it cannot."""

import json
import time
from pathlib import Path

import pytest
from scripted_runs import FakeHandle
from streamlit.testing.v1 import AppTest

from engine.errors import UserError
from engine.registry import describe, method_names

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [{"question_id": "code/00", "category": "code", "turns": ["import os\n\ndef read("]}]


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHandle:
    import streamlit as st

    monkeypatch.syspath_prepend(str(ROOT))
    from pages.parts import settings as module

    prompts = tmp_path / "data" / "prompts"
    prompts.mkdir(parents=True)
    for name in ("code", "docstring", "edit"):
        lines = [json.dumps(question) for question in PROMPTS]
        (prompts / f"{name}.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("DRAFTREE_DATA", str(tmp_path / "data"))
    fake = FakeHandle(steps=6, step_s=0.01, load_s=0.05)
    monkeypatch.setattr(module.settings, "make_handle", lambda: fake)
    st.cache_resource.clear()
    st.cache_data.clear()
    return fake


def page() -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()


def payload(at: AppTest) -> dict:
    (view,) = at.get("bidi_component")
    return json.loads(view.proto.json)


def done(at: AppTest, handle: FakeHandle) -> AppTest:
    deadline = time.monotonic() + 20
    while handle.active and time.monotonic() < deadline:
        time.sleep(0.02)
    return at.run()


def test_one_press_of_run_decodes_with_the_defaults(handle: FakeHandle):
    at = page()
    assert not at.exception
    at.button(key="run").click().run()
    assert not at.exception
    (spec,) = handle.specs
    assert (spec.method, spec.target, spec.draft) == (
        "dynamic-tree",
        "pycode-target",
        "pycode-draft",
    )
    assert spec.prompt == "import os\n\ndef read("
    assert spec.options == {}
    at = done(at, handle)
    assert not at.exception
    shown = payload(at)
    assert shown["total"] == 6
    assert not shown["live"]
    assert shown["state"].startswith("Finished")


def test_the_buttons_follow_the_run(handle: FakeHandle):
    handle._load_s = 1000.0
    at = page()
    assert at.button(key="stop").disabled
    at.button(key="run").click().run()
    assert at.button(key="run").disabled
    assert payload(at)["live"]
    at.button(key="stop").click().run()
    at.run()
    assert not handle.active
    assert not at.button(key="run").disabled


def test_another_session_sees_the_same_run(handle: FakeHandle):
    first = page()
    first.button(key="run").click().run()
    done(first, handle)
    second = page()
    assert payload(second)["total"] == 6
    assert payload(second)["full"]


@pytest.mark.parametrize("method", method_names())
def test_every_method_gets_a_form_of_its_own_options(handle: FakeHandle, method: str):
    at = page()
    at.selectbox(key="method").set_value(method).run()
    assert not at.exception
    infos = describe(method)
    usual = {info.name: info.default for info in infos}
    for info in infos:
        if info.matters(usual):
            assert at.get_by_key(f"{method}/{info.name}") is not None


def test_a_policy_brings_its_own_options_and_takes_others_away(handle: FakeHandle):
    at = page()
    at.number_input(key="dynamic-tree/nodes").set_value(9)
    at.selectbox(key="dynamic-tree/policy").set_value("auto").run()
    assert at.number_input(key="dynamic-tree/most").value == 16
    with pytest.raises(KeyError):
        at.get_by_key("dynamic-tree/nodes")
    at.button(key="run").click().run()
    (spec,) = handle.specs
    assert spec.options == {"policy": "auto"}


def test_changed_options_and_sampling_reach_the_spec(handle: FakeHandle):
    at = page()
    at.number_input(key="dynamic-tree/nodes").set_value(9)
    at.slider(key="temperature").set_value(0.8).run()
    at.number_input(key="top_k").set_value(40)
    at.selectbox(key="dtype").set_value("bfloat16")
    at.button(key="run").click().run()
    (spec,) = handle.specs
    assert spec.options == {"nodes": 9}
    assert (spec.temperature, spec.top_k, spec.dtype) == (0.8, 40, "bfloat16")


def test_an_own_prompt_is_decoded_and_an_empty_one_refused(handle: FakeHandle):
    at = page()
    at.get_by_key("source").set_value("own").run()
    at.button(key="run").click().run()
    assert not handle.specs
    assert "prompt is empty" in at.error[0].value
    at.text_area(key="own_prompt").set_value("<b>x</b>")
    at.button(key="run").click().run()
    assert not at.error
    assert handle.specs[0].prompt == "<b>x</b>"
    assert payload(at)["prompt"] == "<b>x</b>"


def local_model(folder: Path, name: str, kind: str = "llama", **config: object) -> str:
    """A model as far as files tell; its name as a spec takes it."""
    path = folder / name
    path.mkdir(parents=True)
    facts = {"model_type": kind, "vocab_size": 3, "max_position_embeddings": 64}
    (path / "config.json").write_text(json.dumps(facts | config))
    vocab = {"model": {"vocab": {"a": 0, "b": 1, "c": 2}}, "added_tokens": []}
    (path / "tokenizer.json").write_text(json.dumps(vocab))
    (path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return str(path)


def test_an_empty_model_name_is_a_sentence(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    name = local_model(tmp_path / "mine", "some-model")
    monkeypatch.setenv("DRAFTREE_MODELS", str(tmp_path / "mine"))
    at = page()
    at.get_by_key("pair").set_value("Other models").run()
    at.button(key="run").click().run()
    assert not handle.specs
    assert "target model is empty" in at.error[0].value

    at.selectbox(key="target").set_value(name)
    at.button(key="run").click().run()
    assert "draft model is empty" in at.error[0].value
    at.selectbox(key="method").set_value("autoregressive").run()
    at.button(key="run").click().run()
    assert not at.error
    assert (handle.specs[0].target, handle.specs[0].draft) == (name, None)


def test_models_of_this_machine_are_offered_with_a_word_on_whether_they_fit(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    mine = tmp_path / "mine"
    target, draft = local_model(mine, "large"), local_model(mine, "small")
    other = local_model(mine, "other")
    (Path(other) / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"x": 0}}}))
    recurrent = local_model(mine, "<b>rwkv</b>", kind="rwkv")
    monkeypatch.setenv("DRAFTREE_MODELS", str(mine))
    at = page()
    at.get_by_key("pair").set_value("Other models").run()
    offered = at.selectbox(key="target").options
    assert len(offered) == 4
    assert offered[1].startswith("mine/large · llama")
    at.selectbox(key="target").set_value(target).run()
    assert "drafts with a second model" in at.warning[0].value
    at.selectbox(key="draft").set_value(draft).run()
    assert not at.warning
    assert any("same vocabulary of 3 tokens" in caption.value for caption in at.caption)
    at.selectbox(key="draft").set_value(other).run()
    assert "vocabularies differ" in at.warning[0].value
    at.selectbox(key="method").set_value("autoregressive").run()
    assert not at.warning
    at.selectbox(key="target").set_value(recurrent).run()
    assert "rule out" in at.warning[0].value
    assert "<b>" not in at.warning[0].value.replace("\\<", "")
    assert not handle.specs


def test_more_draft_models_are_offered_where_their_trees_can_be_merged(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    mine = tmp_path / "mine"
    target, *drafts = (local_model(mine, name) for name in ("large", "small", "other"))
    stranger = local_model(mine, "stranger")
    (Path(stranger) / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"x": 0}}}))
    local_model(mine, "wide", vocab_size=9)
    monkeypatch.setenv("DRAFTREE_MODELS", str(mine))
    at = page()
    assert not at.multiselect, "no model of this machine fits the embedded target"
    at.get_by_key("pair").set_value("Other models").run()
    assert not at.multiselect, "there is no pair yet"
    at.selectbox(key="target").set_value(target).run()
    at.selectbox(key="draft").set_value(drafts[0]).run()
    assert not at.exception
    offered = at.multiselect(key="other_drafts")
    assert [option.partition(" ")[0] for option in offered.options] == ["mine/other"]
    offered.set_value([drafts[1]]).run()
    at.button(key="run").click().run()
    assert not at.error
    assert handle.specs[-1].drafts == drafts

    at.selectbox(key="method").set_value("staged").run()
    assert not at.multiselect
    done(at, handle)
    at.button(key="run").click().run()
    assert handle.specs[-1].other_drafts == []
    at.selectbox(key="method").set_value("dynamic-tree").run()
    at.multiselect(key="other_drafts").set_value([stranger]).run()
    assert "vocabularies differ" in at.warning[0].value
    at.multiselect(key="other_drafts").set_value([drafts[1]]).run()
    at.selectbox(key="dynamic-tree/policy").set_value("auto").run()
    done(at, handle)
    at.button(key="run").click().run()
    assert "Policy auto" in at.error[0].value
    assert len(handle.specs) == 2


def test_a_huge_prompt_is_refused_with_a_sentence(handle: FakeHandle):
    at = page()
    at.get_by_key("source").set_value("own").run()
    at.text_area(key="own_prompt").set_value("x" * 100_000)
    at.button(key="run").click().run()
    assert not handle.specs
    assert "100 kB" in at.error[0].value


def test_an_eager_run_is_offered_compiled_forwards(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch
):
    from pages.parts import speed_up

    monkeypatch.setattr(speed_up, "_device", lambda run_id: "cpu")
    monkeypatch.setattr("workbench.view.speed_up._has_compiler", lambda: True)
    at = page()
    at.button(key="run").click().run()
    at = done(at, handle)
    assert any("about 4 minutes" in caption.value for caption in at.caption)
    at.button(key="compile").click().run()
    assert [spec.execution for spec in handle.specs] == ["auto", "compiled"]
    at = done(at, handle)
    assert not any(button.key == "compile" for button in at.button)


@pytest.mark.parametrize(
    ("device", "mode", "execution", "compiler"),
    [("cuda", "eager", "auto", True), ("cpu", "compiled", "auto", True),
     ("cpu", "eager", "eager", True), ("cpu", "eager", "auto", False), ("", "eager", "auto", True)],
)  # fmt: skip
def test_nothing_is_offered_where_it_would_not_help(
    device: str, mode: str, execution: str, compiler: bool, monkeypatch: pytest.MonkeyPatch
):
    from workbench.spec import RunSpec
    from workbench.view.live import Live
    from workbench.view.speed_up import offer

    monkeypatch.setattr("workbench.view.speed_up._has_compiler", lambda: compiler)
    spec = RunSpec(prompt="x", execution=execution)
    live = Live(status="finished", run_id="r", spec=spec, mode=mode)
    assert offer(live, device=device) is None


def test_what_the_worker_refuses_is_shown_without_its_markup(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch
):
    def refuse(spec):
        raise UserError("No folder **/tmp/x** <img src=x>.")

    monkeypatch.setattr(handle, "start", refuse)
    at = page()
    at.button(key="run").click().run()
    assert "\\*\\*" in at.error[0].value
    assert "\\<img" in at.error[0].value


def test_a_dead_worker_is_named(handle: FakeHandle):
    at = page()
    at.button(key="run").click().run()
    handle._state.fail("interrupted", "The worker died of SIGKILL: memory ran out.")
    at.run()
    assert "SIGKILL" in at.error[0].value
    assert payload(at)["state"].startswith("Interrupted")


def test_missing_prompts_are_named_and_do_not_break_the_page(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DRAFTREE_DATA", str(tmp_path / "nowhere"))
    at = page()
    assert not at.exception
    assert "code" in at.warning[0].value
