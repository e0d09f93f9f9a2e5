"""`draftree profile` from end to end on a tiny pair, and what runs and comparisons make of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.costs import StoppedError
from engine.paths import profiles_folder
from workbench import cli, job
from workbench.profiling import acceptance
from workbench.spec import RunSpec
from workbench.store import open_run


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def draftree(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*arguments: str) -> Said:
        capfd.readouterr()
        code = cli.run_command(list(arguments))
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture
def pair(tiny_pair: Any) -> list[str]:
    return ["--target", tiny_pair.target, "--draft", tiny_pair.draft, "--threads", "1"]


SMALL = ("--execution", "eager", "--nodes", "4", "--rounds", "2")


def decode(tiny_pair: Any, **changes: Any) -> str:
    values = {
        "method": "static-tree", "target": tiny_pair.target, "draft": tiny_pair.draft,
        "prompt": "def walk(", "max_new_tokens": 16, "execution": "eager", "ignore_eos": True,
        "threads": 1,
    }  # fmt: skip
    finished = job.execute(RunSpec(**(values | changes)), lambda event: None, lambda: False)
    assert finished.status == "finished"
    return finished.run_id


def test_it_measures_writes_and_shows(draftree, pair, tiny_pair) -> None:
    decode(tiny_pair)
    assert "there is no profile" in draftree("profile", "--show", *pair).err
    said = draftree("profile", *pair, *SMALL)
    assert said.code == 0, said.err
    assert "target pass, ms by nodes and context" in said.out
    assert "greedy runs (1 run)" in said.out
    (file,) = profiles_folder().glob("*.json")
    shown = draftree("profile", "--show", *pair, "--execution", "eager")
    assert shown.out == said.out
    stored = json.loads(draftree("profile", "--show", "--json", *pair).out)
    assert stored == json.loads(file.read_text())
    assert stored["costs"]["target"]["nodes"] == [1, 2, 3, 4]
    assert stored["setting"]["mode"] == "eager"
    other = draftree("profile", "--show", *pair[:4], "--threads", "2")
    assert other.code == 2
    assert "threads 1" in other.err


def test_a_run_of_auto_says_where_its_costs_come_from(draftree, pair, tiny_pair) -> None:
    auto = {"method": "dynamic-tree", "options": {"policy": "auto"}}
    with open_run(decode(tiny_pair, **auto)) as run:
        assert run.info.environment["setting"].startswith("costs measured in place: no profile of")
    draftree("profile", *pair, *SMALL)
    run_id = decode(tiny_pair, **auto)
    with open_run(run_id) as run:
        assert run.info.environment["setting"].startswith("profile of ")
        steps = run.steps()
        assert steps["expected_ms"].gt(0).all()
        assert steps["expected_tokens"].ge(1).all()
        first = run.step_record(0, 0).tree
        assert first.expected_ms == steps["expected_ms"].iloc[0]
        summary = run.info.summary
        assert summary["predicted_tokens"] == pytest.approx(steps["expected_tokens"].sum())
        assert summary["met_ns"] == steps["wall_ns"].sum()
    shown = draftree("show", run_id).out
    assert "profile of " in shown
    assert "tokens/s, measured" in shown
    with open_run(decode(tiny_pair)) as run:
        assert run.steps()["expected_ms"].isna().all()
        assert "setting" not in run.info.environment


def test_a_comparison_holds_predictions_against_what_was_measured(
    draftree, pair, tmp_path: Path
) -> None:
    prompts = tmp_path / "two.jsonl"
    prompts.write_text('{"question_id": "a", "category": "c", "turns": ["def f(x):"]}\n')
    said = draftree(
        "compare", "-m", "dynamic-tree:policy=auto,speculative", "-w", str(prompts), *pair,
        "--baselines", "none", "-r", "1", "-n", "8", "--execution", "eager", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    rows = {row["method"]: row for row in json.loads(said.out)["rows"]}
    assert rows["dynamic-tree:policy=auto"]["predicted"] > 0
    assert rows["dynamic-tree:policy=auto"]["setting"].startswith("costs measured in place")
    assert rows["speculative"]["predicted"] is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--execution", "fast"], "--execution is 'fast'"),
        (["--nodes", "255"], "lower --nodes"),
        (["--dtype", "int4"], "int4"),
    ],
)
def test_wrong_input_is_one_sentence(draftree, pair, arguments, reason) -> None:
    said = draftree("profile", *pair, *arguments)
    assert said.code == 2
    assert reason in said.err
    assert not profiles_folder().exists()


def test_a_target_alone_has_no_profile(draftree, tiny_pair) -> None:
    said = draftree("profile", "--target", tiny_pair.target)
    assert said.code == 2
    assert "--draft" in said.err


def test_ctrl_c_writes_nothing(draftree, pair, monkeypatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise StoppedError

    monkeypatch.setattr("engine.costs._time", stopped)
    said = draftree("profile", *pair, *SMALL)
    assert said.code == 130
    assert "Stopped; nothing was written." in said.err
    assert not profiles_folder().exists()


def test_what_is_counted(tiny_pair) -> None:
    """Greedy, fixed and coupled apart; drawn children, lossy rules and other pairs left out."""
    sampled = {"temperature": 0.9}
    plain = decode(tiny_pair)
    decode(tiny_pair, **sampled)
    decode(tiny_pair, children="fixed", **sampled)
    decode(tiny_pair, verify="typical", **sampled)
    decode(tiny_pair, verify="multi-step", **sampled)
    decode(tiny_pair, method="prompt-lookup")
    decode(tiny_pair, draft=tiny_pair.target)
    with open_run(plain) as run:
        found = run.info.environment["models"]
        nodes = run.nodes()
    hashes = found["target"]["content_hash"], found["draft"]["content_hash"]
    learned = acceptance.learn(*hashes)
    assert learned.runs == {"greedy": 1, "coupled": 1, "fixed": 1}
    tested = nodes[(nodes["node"] > 0) & nodes["fate"].isin(["accepted", "rejected"])]
    greedy = learned.calibrations["greedy"]
    assert greedy.num_tested == len(tested)
    assert sum(map(sum, greedy.accepted_RB)) == (tested["fate"] == "accepted").sum()
    reached = tested.groupby(["repeat", "request", "step", "parent"])["fate"]
    assert sum(greedy.parents_B) == reached.ngroups
    assert sum(greedy.continued_B) == reached.agg(lambda fate: (fate == "accepted").any()).sum()
    assert greedy.parents_B[-1] == nodes[nodes["parent"] == 0].groupby("step").ngroups
    with pytest.raises(StoppedError):
        acceptance.learn(*hashes, should_stop=lambda: True)
