"""Stored experiments: every file checked, models looked for, a tiny one measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from workbench.cli import run_command
from workbench.comparing import result
from workbench.comparing.arms import parse_arms
from workbench.experiments.at_hand import at_hand, fetch_command, on_this_machine
from workbench.experiments.stored import (
    changed,
    experiment_names,
    load_experiment,
    on_models,
    read_experiment,
)
from workbench.terminal import reset_consoles
from workbench.view.compare_experiments import measured_told, widgets_of

PAIRS = {
    "gpt2-xl": ("openai-community/gpt2-xl", "openai-community/gpt2"),
    "pythia-1.4b": ("EleutherAI/pythia-1.4b", "EleutherAI/pythia-160m"),
    "smollm2-1.7b": ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-135M"),
    "gemma-2-9b-it": ("google/gemma-2-9b-it", None),
}


@pytest.fixture(autouse=True)
def _consoles():
    reset_consoles()
    yield
    reset_consoles()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any model but the embedded ones."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DRAFTREE_MODELS", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model(folder: Path, *, shards: tuple[str, ...] = ("model.safetensors",)) -> Path:
    """What is looked at of a model folder, and nothing else."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 3}))
    (folder / "tokenizer.json").write_text("{}")
    for name in shards:
        (folder / name).write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def test_the_pairs_of_the_sources_are_there_with_every_precision_and_cache_arm() -> None:
    assert experiment_names()[0] == "embedded-pair", "the one that anyone can start"
    for name, (target, draft) in PAIRS.items():
        spec = load_experiment(name).compare
        assert (spec.target, spec.draft) == (target, draft)
        assert spec.dtypes == ["float32", "bfloat16", "float16"]
        assert spec.caches == [True, False]


@pytest.mark.parametrize("name", experiment_names())
def test_every_stored_file_names_methods_and_prompts_that_exist(name: str) -> None:
    from workbench.workloads import load_workload

    experiment = load_experiment(name)
    assert parse_arms(experiment.compare.methods, experiment.compare.baselines)
    assert all(load_workload(one, limit=1) for one in experiment.compare.workloads)
    hub = {one for one in (experiment.compare.target, experiment.compare.draft) if one}
    assert set(experiment.models) <= hub, "sizes are told of models that are used"


def test_what_is_missing_is_said_before_anything_is_loaded(
    places: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("engine.models.load_model", never)
    assert run_command(["experiments", "run", "pythia-1.4b"]) == 2
    told = capsys.readouterr().err
    assert "The target EleutherAI/pythia-1.4b is not on this machine." in told
    assert "The draft EleutherAI/pythia-160m is not on this machine." in told
    assert f"the Hugging Face cache {places / 'hub'} and in the folders" in told
    assert str(places / "mine") in told
    assert "(2.9 GB): `hf download EleutherAI/pythia-1.4b --include" in told
    assert "--target and --draft" in told
    assert run_command(["experiments", "show", "gemma-2-9b-it"]) == 0
    assert "accept its licence" in capsys.readouterr().out
    assert run_command(["experiments", "run", "gpt2-xl", "--target", "./none", "--draft", "x"]) == 2
    assert "The target ./none is not here: there is no such model folder." in (
        capsys.readouterr().err
    )


def test_models_are_found_in_the_cache_and_in_folders_by_name(places: Path) -> None:
    experiment = load_experiment("smollm2-1.7b")
    target = model(places / "mine" / "SmolLM2-1.7B")
    hub = places / "hub" / "models--HuggingFaceTB--SmolLM2-135M"
    model(hub / "snapshots" / "abc")
    found = on_this_machine(experiment, experiment.compare)
    assert (found.target, found.draft) == (str(target), "HuggingFaceTB/SmolLM2-135M")
    assert found.methods == experiment.compare.methods


def test_half_a_model_is_named_with_what_it_lacks(places: Path) -> None:
    experiment = load_experiment("gemma-2-9b-it")
    folder = model(places / "models" / "google" / "gemma-2-9b-it", shards=("a.safetensors",))
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (one,) = at_hand(experiment.compare, experiment.models)
    assert "lacks b.safetensors" in one.problem
    assert fetch_command("google/gemma-2-9b-it") in one.fetch
    (folder / "b.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer" in at_hand(experiment.compare, experiment.models)[0].problem


def test_another_target_wants_its_own_draft() -> None:
    spec = load_experiment("gpt2-xl").compare
    with pytest.raises(UserError, match="name its own draft too"):
        on_models(spec, target="./big", draft=None)
    embedded = on_models(spec, target="pycode-target", draft=None)
    assert (embedded.target, embedded.draft) == ("pycode-target", "pycode-draft")
    with pytest.raises(UserError, match=r"dtypes.0 is 'int8'; use 'float32'"):
        changed(spec, dtypes=["int8"])


def test_a_tiny_pair_is_measured_in_every_arm(
    tiny_pair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text('"def add(a, b):"\n"import os"\n')
    code = run_command(
        ["experiments", "run", "gpt2-xl", "--target", tiny_pair.target, "--draft", tiny_pair.draft,
         "--dtypes", "float32", "-w", str(prompts), "--limit", "1", "-r", "1", "-n", "6",
         "--execution", "eager", "--device", "cpu", "--json"]
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    (stored,) = result.comparison_ids()
    assert told["comparison"] == stored
    caches = {(row["method"], row["cache"]) for row in told["rows"]}
    assert {("dynamic-tree", True), ("dynamic-tree", False)} <= caches
    assert run_command(
        ["experiments", "run", "gpt2-xl", "--target", tiny_pair.target, "--draft", tiny_pair.draft,
         "--dtypes", "float32", "-w", str(prompts), "--limit", "1", "-r", "1", "-n", "4",
         "--execution", "eager", "--device", "cpu", "--no-cache", "--json"]
    ) == 0  # fmt: skip
    assert {row["cache"] for row in json.loads(capsys.readouterr().out)["rows"]} == {False}


def test_a_file_of_ones_own_is_taken_and_its_faults_are_named(tmp_path: Path, capsys) -> None:
    file = tmp_path / "mine.json"
    shutil.copy(Path(__file__).parents[2] / "data" / "experiments" / "embedded-pair.json", file)
    assert load_experiment(str(file)).name == "mine"
    for values, said in (
        ({"title": "x"}, "compare is missing"),
        ({"title": "x", "compare": {"methods": ["a"], "workloads": ["code"], "caches": []}},
         "compare.caches"),
        ({"title": "x", "how": 1, "compare": {}}, "is no setting|methods is missing"),
    ):  # fmt: skip
        file.write_text(json.dumps(values))
        with pytest.raises(UserError, match=said):
            read_experiment(file)
    file.write_text("[")
    with pytest.raises(UserError, match="not JSON"):
        read_experiment(file)
    assert run_command(["experiments", "run", "nowhere"]) == 2
    assert "There is no experiment 'nowhere'; there are embedded-pair" in capsys.readouterr().err


def test_the_list_says_which_are_ready(places: Path, capsys) -> None:
    assert run_command(["experiments"]) == 0
    shown = capsys.readouterr().out
    assert "missing: EleutherAI/pythia-1.4b" in shown
    assert run_command(["experiments", "list", "--json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)["experiments"]}
    assert told["embedded-pair"]["ready"]
    assert not told["gpt2-xl"]["ready"]


def test_an_experiment_fills_the_form() -> None:
    spec = load_experiment("gemma-2-9b-it").compare
    held = widgets_of(spec)
    assert held["compare/draft"] == ""
    assert held["compare/caches"] == [True, False]
    assert measured_told(spec).endswith("float32, bfloat16, float16; cache on and off.")
