"""Several draft models in runs, comparisons, sweeps and on the command line."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import Said, draftree  # noqa: F401  (a fixture)
from transformers import LlamaForCausalLM

from engine.errors import UserError
from engine.shapes import from_paths
from engine.tree import Children, drafts_mask, drafts_text
from workbench import job
from workbench.compare import CompareSpec, compare
from workbench.comparing.arms import parse_arm
from workbench.events import Event, StepDone
from workbench.models import check_spec
from workbench.report.again import compare_command, run_command
from workbench.spec import RunSpec
from workbench.store import open_run
from workbench.store.index import read_entry
from workbench.store.rebuild import node_columns
from workbench.sweeping.spec import build_sweep
from workbench.view.trial import trial_spec
from workbench.whatif.measure import same_setup
from workbench.whatif.ranks import UNKNOWN, read_ranks


@pytest.fixture(scope="module")
def second(tiny_pair: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another draft model of the pair's family, which errs elsewhere."""
    folder = tmp_path_factory.mktemp("second") / "second"
    shutil.copytree(tiny_pair.draft, folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    rng = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.add_(torch.randn(weight.shape, generator=rng) * 0.25 * weight.std())
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def values(tiny_pair: Any, second: str) -> dict[str, Any]:
    return {
        "method": "static-tree",
        "target": tiny_pair.target,
        "draft": tiny_pair.draft,
        "other_drafts": [second],
        "prompt": "def walk(",
        "max_new_tokens": 16,
        "execution": "eager",
        "ignore_eos": True,
    }


@pytest.fixture
def stored(values: dict[str, Any]) -> tuple[str, list[StepDone]]:
    events: list[Event] = []
    finished = job.execute(RunSpec(**values), events.append, lambda: False)
    return finished.run_id, [event for event in events if isinstance(event, StepDone)]


def test_a_run_keeps_who_drafted_what_and_with_which_models(
    stored: tuple[str, list[StepDone]], values: dict[str, Any]
) -> None:
    run_id, steps = stored
    with open_run(run_id) as run:
        assert run.info.spec.drafts == [values["draft"], *values["other_drafts"]]
        models = run.info.environment["models"]
        assert run.info.environment["tokenizers_match"] is True
        nodes, tokens = run.nodes(), run.tokens().query("kept")["token"].tolist()
        for step in steps:
            kept, live = run.tree(0, step.record.step).drafts_M, step.record.tree.drafts_M
            if kept is None:
                assert live is None or not live.any()
            else:
                np.testing.assert_array_equal(kept, live)
        ranks = read_ranks(run).requests[0].rank_L
    assert list(models) == ["target", "draft", "draft 2"]
    assert len({model["content_hash"] for model in models.values()}) == 3
    assert set(nodes["drafts"].dropna()) == {"1", "2", "1+2"}
    assert nodes.query("node == 0")["drafts"].isna().all()
    assert (ranks == UNKNOWN).all(), "ranks among several drafts were taken for those of one"
    plain = values | {"method": "autoregressive", "draft": None, "other_drafts": []}
    with open_run(job.execute(RunSpec(**plain), lambda event: None, lambda: False).run_id) as run:
        assert run.tokens().query("kept")["token"].tolist() == tokens
        assert run.nodes()["drafts"].isna().all()


def test_what_if_asks_about_one_draft_model(
    stored: tuple[str, list[StepDone]], values: dict[str, Any]
) -> None:
    run_id, _ = stored
    again = trial_spec(run_id, from_paths("0;0.0"), Children.FIXED)
    assert (again.draft, again.other_drafts) == (values["draft"], [])
    entry = read_entry(run_id)
    assert entry is not None
    alone, plain = (
        dataclasses.replace(entry, spec=entry.spec | changes)
        for changes in ({"other_drafts": []}, {"draft": None, "other_drafts": []})
    )
    assert same_setup(entry, plain)
    assert same_setup(alone, plain)
    assert not same_setup(alone, entry), "times of two drafts were taken for those of one"


def test_runs_of_the_format_before_have_one_draft() -> None:
    columns = {name: [0.0] for name in ("draft_logprob", "target_logprob", "accept_prob")}
    columns |= {name: [0] for name in ("token", "parent", "depth", "rank")}
    columns |= {"round_added": [0], "round_pruned": [-1]}
    old = pd.DataFrame(columns | {"fate": ["root"], "source": ["root"]})
    assert node_columns(old)["drafts"].tolist() == [0]


def test_masks_have_words() -> None:
    assert [drafts_text(mask) for mask in (0, 1, 2, 3, 128)] == ["", "1", "2", "1+2", "8"]
    assert all(drafts_mask(drafts_text(mask)) == mask for mask in range(256))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "staged"}, "staged drafts with one draft model"),
        ({"method": "dynamic-tree", "options": {"policy": "auto"}}, "Policy auto"),
        ({"verify": "traversal", "temperature": 0.8}, "Use --verify match"),
        ({"children": "sampled", "temperature": 0.8}, "Use --verify match"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_models_are_loaded(
    values: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_spec(RunSpec(**values | changes))


def test_methods_without_a_draft_model_mind_no_drafts(values: dict[str, Any]) -> None:
    check_spec(RunSpec(**values | {"method": "prompt-lookup"}))
    check_spec(RunSpec(**values | {"children": "sampled"}))  # greedy draws nothing


def test_the_command_line_takes_draft_several_times(
    draftree: Any,  # noqa: F811
    values: dict[str, Any],
) -> None:
    both = [word for name in RunSpec(**values).drafts for word in ("--draft", name)]
    words = ["run", "-p", "def f(", "-n", "8", "--target", values["target"], *both,
             "--execution", "eager", "--ignore-eos"]  # fmt: skip
    said: Said = draftree(*words, "-m", "static-tree", "--json")
    assert said.code == 0, said.err
    with open_run(said.json["run_id"]) as run:
        assert run.info.spec.other_drafts == values["other_drafts"]
    nodes = draftree("show", "last", "--step", "0", "--json").json["nodes"]
    assert nodes[0]["drafts"] is None
    assert {node["drafts"] for node in nodes[1:]} <= {"1", "2", "1+2"}
    assert " by 1" in draftree("show", "last", "--step", "0").out
    assert Path(values["other_drafts"][0]).name in draftree("show", "last").out.replace("\n", "")
    counted = draftree("query", "select count(drafts) as n from node", "--json")
    assert counted.json["rows"][0][0] > 0
    said = draftree(*words, "-m", "staged")
    assert said.code != 0
    assert "speculative, static-tree, dynamic-tree" in said.err.replace("\n", " ")


def test_the_draft_that_speaks_other_tokens_is_named(
    values: dict[str, Any], tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    shutil.copytree(values["draft"], stranger)
    file = stranger / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[1:3]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"stranger .*2 of the latter"):
        job.execute(
            RunSpec(**values | {"other_drafts": [str(stranger)]}), lambda event: None, lambda: False
        )


def test_the_command_to_run_it_again_names_every_draft(values: dict[str, Any]) -> None:
    words = shlex.split(run_command(RunSpec(**values)))
    given = [words[at + 1] for at, word in enumerate(words) if word == "--draft"]
    assert given == [values["draft"], *values["other_drafts"]]
    spec = CompareSpec(methods=["static-tree"], workloads=["code"], other_drafts=["b", "c"])
    words = shlex.split(compare_command(spec))
    given = [words[at + 1] for at, word in enumerate(words) if word == "--draft"]
    assert given == ["pycode-draft", "b", "c"]
    assert "--other-drafts" not in words


# --- comparisons and sweeps ---


@pytest.fixture
def spec(values: dict[str, Any], tmp_path: Path) -> CompareSpec:
    file = tmp_path / "prompts.txt"
    file.write_text('"def add(a, b):"\n')
    same = {name: values[name] for name in ("target", "draft", "other_drafts")}
    return CompareSpec(
        methods=["static-tree:drafts=[1,2]", "staged"], workloads=[str(file)], baselines=[],
        max_new_tokens=12, repeats=1, executions=["eager"], threads=1, device="cpu", **same,
    )  # fmt: skip


def test_arms_merge_as_many_drafts_as_they_say(spec: CompareSpec, tmp_path: Path) -> None:
    found = compare(spec, runs=tmp_path / "runs")
    arms = {arm.label: arm for arm in found.arms}
    merged, alone = arms["static-tree:drafts=2"], arms["static-tree:drafts=1"]
    assert merged.matched == alone.matched == arms["staged"].matched == 1
    others = {}
    for label, arm in arms.items():
        with open_run(arm.run_id, tmp_path / "runs") as run:
            others[label] = run.info.spec.other_drafts
    assert others == {
        "autoregressive": [],
        "static-tree:drafts=1": [],
        "static-tree:drafts=2": spec.other_drafts,
        "staged": [],
    }
    assert merged.samples[0].drafted > alone.samples[0].drafted
    assert merged.samples[0].steps <= alone.samples[0].steps
    (note,) = found.notes
    assert note.startswith("staged drafted with draft alone. staged drafts with one draft model")
    assert "draft 2" in found.environment["models"]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("static-tree:drafts=3", "asks for 3 draft models and there are 2"),
        ("staged:drafts=2", "asks for 2 draft models. staged drafts with one"),
        ("dynamic-tree:policy=auto,drafts=2", "Policy auto"),
    ],
)
def test_arms_that_cannot_have_so_many_are_refused(
    spec: CompareSpec, arm: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        compare(spec.model_copy(update={"methods": [arm]}), runs=tmp_path / "runs")


def test_an_arm_without_draft_model_has_no_drafts() -> None:
    with pytest.raises(UserError, match="drafts without a draft model"):
        parse_arm("prompt-lookup:drafts=2")
    with pytest.raises(UserError, match="drafts of static-tree is '9'"):
        parse_arm("static-tree:drafts=9")


def test_a_sweep_may_list_its_drafts() -> None:
    values = {"name": "merge", "methods": ["static-tree:drafts=[1,2]"], "workloads": ["code"]}
    spec = build_sweep(values | {"draft": ["a", "b", "c"]})
    assert (spec.draft, spec.other_drafts) == ("a", ["b", "c"])
    assert spec.part(["static-tree:drafts=2"]).other_drafts == ["b", "c"]
