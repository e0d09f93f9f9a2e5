"""Runs, loads and comparisons on ranks as they are kept: lanes, layout, a rank that died."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from engine.parallel import group as groups
from engine.paths import runs_folder
from workbench.compare import compare
from workbench.comparing.result import CompareSpec
from workbench.events import RunStarted, StepDone
from workbench.job import execute
from workbench.loading.run import execute as load
from workbench.loading.spec import LoadSpec
from workbench.spec import RunSpec

pytestmark = pytest.mark.slow

OPTIONS = {"nodes": 10, "depth": 4}


@pytest.fixture(autouse=True, scope="module")
def _end_ranks():
    yield
    groups.close_group()


def rows_of(run_id: str, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(runs_folder() / f"{run_id}.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_a_comparison_on_ranks_keeps_lanes_and_tokens():
    spec = CompareSpec(
        methods=[
            "dynamic-tree:nodes=10,depth=4,ranks=[1,2]", "autoregressive:ranks=2,parallel=target"
        ],
        baselines=[], workloads=["code"], limit=1, repeats=1, max_new_tokens=16,
        executions=["eager"], threads=1,
    )  # fmt: skip
    found = compare(spec)
    assert [arm.error for arm in found.arms] == [""] * 4
    assert all(arm.matched == arm.compared == 1 for arm in found.arms)
    by_label = {arm.label: arm for arm in found.arms}
    ranks = {
        label: {rank for (rank,) in rows_of(arm.run_id, "SELECT DISTINCT rank FROM lane")}
        for label, arm in by_label.items()
    }
    assert ranks == {
        "autoregressive": set(),
        "dynamic-tree:nodes=10,depth=4,ranks=1": set(),
        "dynamic-tree:nodes=10,depth=4,ranks=2": {0, 1},
        "autoregressive:ranks=2,parallel=target": {0, 1},
    }
    shared = by_label["dynamic-tree:nodes=10,depth=4,ranks=2"].run_id
    (steps,) = rows_of(shared, "SELECT count(*) FROM step")[0]
    scores = rows_of(shared, "SELECT step FROM lane WHERE what = 'score' ORDER BY step")
    assert [step for (step,) in scores] == list(range(steps))
    ((kept,),) = rows_of(shared, "SELECT environment FROM run")
    assert json.loads(kept)["parallel"]["draft"] == [0, 1]


def test_arms_that_other_ranks_could_do_nothing_for_run_on_one():
    spec = CompareSpec(
        methods=["dynamic-tree:nodes=8,depth=3", "staged:nodes=8", "staged:nodes=6,placement=own"],
        baselines=[], workloads=["code"], limit=1, repeats=1, max_new_tokens=8,
        executions=["eager"], threads=1, ranks=2,
    )  # fmt: skip
    found = compare(spec)
    assert [arm.error for arm in found.arms] == [""] * 4
    assert all(arm.matched == arm.compared for arm in found.arms)
    ran = {
        arm.label: json.loads(rows_of(arm.run_id, "SELECT spec FROM run")[0][0])["ranks"]
        for arm in found.arms
    }
    assert list(ran.values()) == [1, 2, 1, 2]
    notes = "\n".join(found.notes)
    assert "staged:nodes=8 ran on one rank. Ranks beside the first would have nothing" in notes
    assert "staged:nodes=6,placement=own: Drafting was not divided: staged drafts on" in notes


def test_a_load_on_ranks_keeps_lanes_on_its_own_clock():
    spec = LoadSpec(
        options=OPTIONS, arrivals="closed", clients=2, requests=3, slots=2, max_new_tokens=12,
        ranks=2, placement="own", execution="eager", threads=1,
    )  # fmt: skip
    finished = load(spec, lambda event: None, lambda: False)
    assert finished.status == "finished", finished.message
    ((kept,),) = rows_of(finished.run_id, "SELECT environment FROM run")
    assert json.loads(kept)["parallel"]["draft"] == [1]
    lanes = {(rank, lane) for rank, lane in rows_of(finished.run_id, "SELECT rank, lane FROM lane")}
    assert lanes == {(0, "target"), (0, "network"), (1, "draft")}
    # each pass of the target lies in the step that the scheduler noted
    outside = rows_of(
        finished.run_id,
        "SELECT count(*) FROM lane WHERE what = 'score' AND NOT EXISTS (SELECT 1 FROM tick WHERE"
        " tick.begin_ns <= lane.begin_ns AND lane.end_ns <= tick.end_ns)",
    )
    ticks = rows_of(finished.run_id, "SELECT count(*) FROM tick")
    scores = rows_of(finished.run_id, "SELECT count(*) FROM lane WHERE what = 'score'")
    assert outside == [(0,)]
    assert scores == ticks
    assert groups._kept is not None
    assert not groups._kept.users, "the engine let go of its ranks"


def test_a_run_says_what_of_it_was_not_divided():
    events: list[Any] = []
    spec = RunSpec(
        method="staged", prompt="import os", max_new_tokens=8, ranks=2, placement="own",
        execution="eager", threads=1,
    )  # fmt: skip
    finished = execute(spec, events.append, lambda: False)
    assert finished.status == "finished"
    (started,) = [event for event in events if isinstance(event, RunStarted)]
    assert started.note.startswith("Drafting was not divided: staged drafts on one rank")
    ((kept,),) = rows_of(finished.run_id, "SELECT environment FROM run")
    assert json.loads(kept)["parallel"]["note"] == started.note


def test_a_run_says_its_layout_and_fails_by_name_when_a_rank_dies():
    spec = RunSpec(
        options=OPTIONS, prompt="import os", max_new_tokens=200, ignore_eos=True, ranks=2,
        placement="own", execution="eager", threads=1,
    )  # fmt: skip
    steps: list[StepDone] = []

    def take(event: Any) -> None:
        if isinstance(event, StepDone):
            steps.append(event)
            if len(steps) == 3:
                assert groups._kept is not None
                groups._kept._members[0].process.kill()

    finished = execute(spec, take, lambda: False)
    assert finished.status == "failed"
    assert "Rank 1" in finished.message
    assert "killed by SIGKILL" in finished.message
    ((kept, message),) = rows_of(finished.run_id, "SELECT environment, message FROM run")
    assert message == finished.message
    layout = json.loads(kept)["parallel"]
    assert (layout["target"], layout["draft"], layout["look_ahead"]) == ([0], [1], True)
