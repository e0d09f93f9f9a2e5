"""What a replay is told: facts of all steps, windows of trees, two runs of one prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scripted_runs import scripted_steps
from stored_runs import Spelled, in_order, piece, random_steps, steps_writing, store_run

from engine.errors import UserError
from workbench import metrics
from workbench.events import StepDone
from workbench.store import list_runs, run_file
from workbench.store.schema import RunStatus
from workbench.view.replay import (
    BOXES_PER_ANSWER,
    STEPS_PER_ANSWER,
    Replay,
    replayable,
    request_choices,
)
from workbench.view.replay_facts import starts_ns
from workbench.view.replay_pair import comparable, divergence, pair_facts
from workbench.view.replay_payload import payload, start_of
from workbench.view.steps import step_facts, step_layout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def told(record) -> StepDone:
    """The step as the live view was told of it."""
    return StepDone(
        record, [piece(int(t)) for t in record.tree.tokens_M], Spelled().add(record.emitted)
    )


# --- facts ---


def test_the_columns_say_what_each_step_said(folder: Path):
    records = random_steps(30)
    replay = Replay(store_run(folder, [records]), 0, folder=folder)
    facts = replay.facts
    assert facts["num_steps"] == len(records)
    at = 0
    for number, record in enumerate(records):
        live = step_facts(told(record), number)
        count = facts["kept"][number]
        own = zip(facts["text"][at : at + count], facts["mark"][at : at + count], strict=True)
        at += count
        assert list(own) == live["tokens"]
        assert facts["accepted"][number] == live["accepted"]
        assert facts["origin"][number] == live["origin"]
        assert facts["words"][facts["word"][number]] == live["words"]
        spent = [facts["stages"][name][number] for name in metrics.STAGES]
        assert spent == pytest.approx([ns / 1000 for ns in record.times], abs=0.5)
        assert sum(spent) == pytest.approx(facts["wall"][number], abs=4)
    assert at == len(facts["text"])
    json.dumps(facts)


def test_figures_are_those_of_the_request(folder: Path):
    first, second = random_steps(5), random_steps(9, seed=1)
    run = store_run(folder, [first, second])
    replay = Replay(run, 1, folder=folder)
    expected = metrics.summarise(second)
    assert replay.summary.tokens_per_step == expected.tokens_per_step
    assert replay.summary.tokens_per_second == pytest.approx(expected.tokens_per_second)
    # the plain step was timed on the first request's prompt
    assert Replay(run, 0, folder=folder).plain_step_ns
    assert replay.plain_step_ns is None
    assert [c.request for c in request_choices(run, folder)] == [0, 1]


def test_steps_stand_on_the_clock_with_the_pauses_between_them():
    steps = pd.DataFrame({"wall_ns": [10, 20, 30], "time_ns": [110, 140, 170]})
    assert starts_ns(steps).tolist() == [0, 20, 40]


@pytest.mark.parametrize("clock", [[0, 0, 0], [50, 40, 30]])
def test_a_clock_that_says_nothing_leaves_no_pauses(clock: list[int]):
    steps = pd.DataFrame({"wall_ns": [10, 20, 30], "time_ns": clock})
    assert starts_ns(steps).tolist() == [0, 10, 30]


def test_hostile_text_is_spelled_out(folder: Path):
    run = store_run(folder, [random_steps(2)], prompt="<script>\x1b[2J\u202e</script>")
    assert Replay(run, 0, folder=folder).facts["prompt"] == "<script>\\x1b[2J\\u202e</script>"


# --- trees ---


def test_stored_trees_are_drawn_as_they_were_live(folder: Path):
    records = in_order([step.record for step in scripted_steps(6, num_nodes=20)])
    replay = Replay(store_run(folder, [records]), 0, folder=folder)
    trees = replay.trees(range(6))
    assert list(trees) == list(range(6))
    for number, record in enumerate(records):
        expected, stored = step_layout(told(record)), trees[number]
        assert stored is not None
        for name in ("node", "up", "x", "y", "kind", "label", "p_draft", "why", "reasons"):
            assert stored[name] == expected[name], name


def test_pruned_nodes_and_whole_trees_are_laid_out_when_asked_for(folder: Path):
    replay = Replay(store_run(folder, [random_steps(2, num_nodes=300)]), 0, folder=folder)
    (plain,) = replay.trees([0]).values()
    (pruned,) = replay.trees([0], pruned=True, whole=True).values()
    (whole,) = replay.trees([0], whole=True).values()
    assert plain
    assert pruned
    assert whole
    assert "fold" in plain["kind"]
    assert "fold" not in whole["kind"]
    assert pruned["kind"].count("pruned") == 3


def test_an_answer_has_bounds_and_keeps_the_order_asked_for(folder: Path):
    replay = Replay(store_run(folder, [random_steps(90, num_nodes=8)]), 0, folder=folder)
    assert list(replay.trees([7, 3, 3, -1, 90, 5])) == [7, 3, 5]
    assert len(replay.trees(range(90))) == STEPS_PER_ANSWER
    large = Replay(store_run(folder, [random_steps(40, num_nodes=201)]), 0, folder=folder)
    assert len(large.trees(range(40))) == BOXES_PER_ANSWER // 200
    assert replay.trees([]) == {}


def test_laid_out_trees_are_not_kept_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workbench.view.replay.KEPT_TREES", 10)
    replay = Replay(store_run(folder, [random_steps(30, num_nodes=4)]), 0, folder=folder)
    for first in (0, 8, 16):
        assert None not in replay.trees(range(first, first + 8)).values()
    assert len(replay._trees) <= 10


def test_a_step_whose_nodes_are_missing_has_no_tree(folder: Path):
    run = store_run(folder, [random_steps(4)])
    with duckdb.connect(run_file(run, folder)) as file:
        file.execute("DELETE FROM node WHERE step = 2")
        file.execute("DELETE FROM piece")
    trees = Replay(run, 0, folder=folder).trees(range(4))
    assert trees[2] is None
    assert trees[1]["piece"][0].startswith("#")


# --- runs that ended early ---


def test_an_interrupted_run_is_replayed_as_far_as_it_went(folder: Path):
    records = random_steps(7)
    run = store_run(folder, [records], status=None)
    (choice,) = request_choices(run, folder)
    replay = Replay(run, choice.request, folder=folder)
    assert replay.num_steps == 7
    assert len(replay.trees(range(7))) == 7
    assert replay.facts["head"]["state"].startswith("Interrupted after")
    assert replay.facts["head"]["message"]


@pytest.mark.parametrize("status", [RunStatus.CANCELLED, RunStatus.FAILED])
def test_runs_that_were_ended_say_so(folder: Path, status: RunStatus):
    run = store_run(folder, [random_steps(3)], status=status)
    replay = Replay(run, 0, folder=folder)
    assert replay.facts["head"]["message"] == "It was ended in a test."
    assert replayable(list_runs(folder)[0])


def test_a_request_without_its_row_is_still_replayed(folder: Path):
    run = store_run(folder, [random_steps(3)])
    with duckdb.connect(run_file(run, folder)) as file:
        file.execute("DELETE FROM request")
    (choice,) = request_choices(run, folder)
    assert choice.label == "1"
    assert Replay(run, 0, folder=folder).prompt == "def f(x):\n"


@pytest.mark.parametrize("status", list(RunStatus)[1:])
def test_a_run_without_steps_is_a_sentence(folder: Path, status: RunStatus):
    run = store_run(folder, [[]], status=status)
    with pytest.raises(UserError, match=f"Run {run} holds no steps.*\\."):
        request_choices(run, folder)
    with pytest.raises(UserError, match="no steps of request 1"):
        Replay(run, 0, folder=folder)


def test_a_damaged_file_is_a_sentence(folder: Path):
    run = store_run(folder, [random_steps(2)])
    run_file(run, folder).write_bytes(b"not a database" * 1000)
    with pytest.raises(UserError, match="cannot be read"):
        request_choices(run, folder)


def test_runs_under_way_or_without_recorded_steps_are_not_offered(folder: Path):
    store_run(folder, [random_steps(2)])
    (entry,) = list_runs(folder)
    assert replayable(entry)
    assert not replayable(replace(entry, status=RunStatus.RUNNING))
    silent = replace(entry, summary=entry.summary | {"histogram": []})  # as hf-generate leaves it
    assert not replayable(silent)
    assert replayable(replace(silent, status=RunStatus.INTERRUPTED))  # its index may lag behind


# --- answers ---


def test_the_first_answer_has_the_facts_and_trees_around_the_start(folder: Path):
    replay = Replay(store_run(folder, [random_steps(60)]), 0, folder=folder)
    (side,) = payload([replay], {}, start=30)["sides"]
    assert side["facts"]["num_steps"] == 60
    assert {29, 30, 31} <= set(side["trees"])
    assert len(side["trees"]) <= 24


def test_later_answers_have_just_what_was_asked_for(folder: Path):
    replay = Replay(store_run(folder, [random_steps(60)]), 0, folder=folder)
    question = {"have": [replay.id], "want": {replay.id: [50, 10]}, "pruned": True}
    (side,) = payload([replay], question, start=0)["sides"]
    assert side["facts"] is None
    assert list(side["trees"]) == [50, 10]
    assert side["pruned"]
    assert "pruned" in side["trees"][50]["kind"]


@pytest.mark.parametrize(
    "question",
    [{"want": 3, "have": "x"}, {"want": {"other": [1]}}, {"have": None, "want": None}],
)
def test_a_question_that_makes_no_sense_is_answered_like_the_first(folder: Path, question: dict):
    replay = Replay(store_run(folder, [random_steps(3)]), 0, folder=folder)
    (side,) = payload([replay], question, start=0)["sides"]
    assert side["facts"]
    assert set(side["trees"]) == {0, 1, 2}


def test_places_that_are_none_are_left_out(folder: Path):
    replay = Replay(store_run(folder, [random_steps(3)]), 0, folder=folder)
    want = {replay.id: ["1", None, 2.0, 99, -4]}
    (side,) = payload([replay], {"want": want}, start=0)["sides"]
    assert list(side["trees"]) == [2]


@pytest.mark.parametrize(
    ("named", "place"), [(None, 0), ("1", 0), ("3", 2), ("99", 2), ("0", 0), ("-5", 0), ("x", 0)]
)
def test_the_address_counts_steps_from_one(folder: Path, named: str | None, place: int):
    replay = Replay(store_run(folder, [random_steps(3)]), 0, folder=folder)
    assert start_of(named, replay) == place


# --- two runs ---

TOKENS = [int(token) * 1000 for token in np.arange(20) % 9]


def stored(folder: Path, tokens: list[int], sizes: list[int], **spec: object) -> Replay:
    return Replay(store_run(folder, [steps_writing(tokens, sizes)], **spec), 0, folder=folder)


def test_equal_texts_have_no_difference(folder: Path):
    left, right = stored(folder, TOKENS, [4] * 5), stored(folder, TOKENS, [1] * 20)
    at, sentence = divergence(left, right)
    assert at is None
    assert sentence == "No difference: both texts have the same 20 tokens."


def test_the_first_difference_is_named_with_both_tokens(folder: Path):
    other = [*TOKENS[:11], 25_000, *TOKENS[12:]]
    other[15] = 26_000  # a later one is not the first
    at, sentence = divergence(stored(folder, TOKENS, [4] * 5), stored(folder, other, [2] * 10))
    assert at == 11
    assert f"(token {TOKENS[11]})" in sentence
    assert "(token 25000)" in sentence
    assert "after 11 tokens" in sentence


def test_a_difference_at_the_first_token(folder: Path):
    left, right = stored(folder, [1000, 2000], [2]), stored(folder, [3000, 2000], [2])
    at, sentence = divergence(left, right)
    assert at == 0
    assert "at the first token" in sentence


def test_a_longer_text_is_no_difference(folder: Path):
    left, right = stored(folder, TOKENS[:8], [4, 4]), stored(folder, TOKENS, [4] * 5)
    at, sentence = divergence(left, right)
    assert at is None
    assert "in the 8 tokens that both have; the right text goes on for 12 tokens" in sentence


def test_prompts_that_differ_are_said_to(folder: Path):
    left, right = stored(folder, TOKENS, [20]), stored(folder, TOKENS, [20], prompt="else")
    at, sentence = divergence(left, right)
    assert at is None
    assert "prompts differ" in sentence


def test_tokens_that_were_cut_off_are_not_compared(folder: Path):
    cut = steps_writing(TOKENS[:8], [4, 4])
    cut[-1] = replace(cut[-1], num_kept=2)
    left = Replay(store_run(folder, [cut]), 0, folder=folder)
    at, sentence = divergence(left, stored(folder, TOKENS[:6], [3, 3]))
    assert at is None
    assert "same 6 tokens" in sentence


def test_totals_stand_side_by_side(folder: Path):
    left, right = stored(folder, TOKENS, [4] * 5), stored(folder, TOKENS, [1] * 20)
    rows = {name: values for name, *values in pair_facts(left, right)["totals"]}
    assert rows["tokens"] == ["20", "20"]
    assert rows["steps"] == ["5", "20"]
    assert rows["tokens per step"] == ["4.00", "1.00"]


def test_offered_are_runs_of_the_same_prompt_and_models(folder: Path):
    steps = [steps_writing(TOKENS, [20])]
    this = store_run(folder, steps)
    fitting = {
        store_run(folder, steps, method="autoregressive", draft=None),
        store_run(folder, steps, method="static-tree", temperature=1.0),
        store_run(folder, steps, status=RunStatus.CANCELLED),
    }
    store_run(folder, steps, prompt="another")
    store_run(folder, steps, target="another")
    store_run(folder, steps, draft="another")
    entries = list_runs(folder)
    one = next(entry for entry in entries if entry.run_id == this)
    assert {entry.run_id for entry in comparable(one, entries)} == fitting
