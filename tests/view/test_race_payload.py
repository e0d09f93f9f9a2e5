"""Groups of runs that can race, and what the race is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranked_runs import RANKS, write_run

from engine.errors import UserError
from workbench.store import list_runs
from workbench.view.race import (
    difference,
    first_choice,
    groups,
    lane_label,
    questions,
    race_payload,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_runs_of_one_prompt_make_a_group_and_others_none(folder: Path):
    write_run(folder, prompt="alone")
    plain = write_run(folder, "", step_ms=6)
    tree = write_run(folder, "0;1;0.0")
    again = write_run(folder, "0;1;0.0")
    (group,) = groups(list_runs(folder))
    assert {entry.run_id for entry in group.entries} == {plain, tree, again}
    assert group.label == "import os"
    chosen = first_choice(group)
    assert chosen[0] == plain, "plain decoding comes first"
    assert len(chosen) == 2, "one of each method and options"
    labels = [lane_label(entry) for entry in group.entries]
    assert len(set(labels)) == 3


def test_runs_that_write_another_text_are_not_chosen_at_first(folder: Path):
    plain = write_run(folder, "")
    tree = write_run(folder)
    other = write_run(folder, target="another", temperature=0.5)
    (group,) = groups(list_runs(folder))
    assert set(first_choice(group)) == {plain, tree}
    assert other in {entry.run_id for entry in group.entries}


def test_bursts_carry_time_text_and_origin(folder: Path):
    runs = [write_run(folder, "", step_ms=6), write_run(folder, "0;1;0.0", step_ms=9)]
    assert [question.request for question in questions(runs, folder)] == [0]
    payload = json.loads(json.dumps(race_payload(runs, 0, folder)))
    plain, tree = payload["lanes"]
    assert len(plain["bursts"]) == len(RANKS)
    assert all(len(tokens) == 1 for _, tokens in plain["bursts"])
    assert plain["bursts"][-1][0] == pytest.approx(6 * len(RANKS), rel=0.01)
    assert sum(len(tokens) for _, tokens in tree["bursts"]) == len(RANKS) == tree["tokens"]
    assert {origin for _, tokens in plain["bursts"] for _, origin in tokens} == {0}
    assert {origin for _, tokens in tree["bursts"] for _, origin in tokens} == {1, 2, 3}
    assert plain["prefill"] == pytest.approx(40)
    assert payload["difference"] == ""


def test_differences_are_named(folder: Path):
    assert difference(["a", "b"], [[1, 2, 3], [1, 2, 3]]) == ""
    assert "b parts from a at token 2" in difference(["a", "b"], [[1, 2, 3], [1, 9]])
    assert "b has 2 tokens, a 3" in difference(["a", "b"], [[1, 2, 3], [1, 2]])


def test_wrong_numbers_of_runs_are_refused(folder: Path):
    run = write_run(folder)
    with pytest.raises(UserError, match="2 to 4"):
        race_payload([run], 0, folder)
    with pytest.raises(UserError, match="no request 7"):
        race_payload([run, run], 7, folder)
