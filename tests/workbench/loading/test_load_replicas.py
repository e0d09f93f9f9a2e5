"""Load runs on several replicas: the same texts as on one, kept in the same tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.cluster.choosing import CHOOSERS
from engine.errors import UserError
from workbench.events import Event, LoadStarted, Progress
from workbench.loading import run as loading
from workbench.loading.again import load_command
from workbench.loading.spec import LoadSpec
from workbench.store import list_runs, open_run, serving

PROMPTS = ["def one(a):", "import os\n", "class Two:\n    x = 1", "for i in range(9):"]


@pytest.fixture
def asked(tiny_pair: Any, tmp_path: Path) -> LoadSpec:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in PROMPTS))
    return LoadSpec(
        target=tiny_pair.target, draft=tiny_pair.draft, workload=str(file), requests=10, rate=200.0,
        max_new_tokens=12, slots=2, execution="eager", ignore_eos=True, threads=1,
    )  # fmt: skip


def texts(run_id: str) -> dict[int, str]:
    with open_run(run_id) as run:
        rows = run.requests()
        return dict(zip(rows["request"], rows["text"], strict=True))


@pytest.mark.slow
def test_two_replicas_write_the_texts_that_one_engine_writes(asked: LoadSpec) -> None:
    told: list[Event] = []
    alone = loading.execute(asked, lambda event: None, lambda: False)
    several = asked.model_copy(update={"replicas": 2})
    finished = loading.execute(several, told.append, lambda: False)
    assert (finished.status, finished.message) == ("finished", "")
    assert texts(finished.run_id) == texts(alone.run_id)
    with open_run(finished.run_id) as run:
        arrivals, ticks = serving.arrivals(run), serving.ticks(run)
        steps = run.steps()
    assert len(arrivals) == 10
    assert set(arrivals["replica"]) == set(ticks["replica"]) == {0, 1}
    assert set(arrivals["attempts"]) == {1}
    assert set(steps["time_ns"]) == set(ticks["end_ns"])
    assert len(set(steps["batch_step"])) == len(ticks)
    assert steps["num_kept"].sum() == arrivals["num_kept"].sum() == 120
    (started,) = [event for event in told if isinstance(event, LoadStarted)]
    assert started.mode == "eager"
    assert any("of 2 replicas ready" in e.message for e in told if isinstance(e, Progress))
    assert 0 < finished.metrics["slots_used"] <= 1


@pytest.mark.slow
def test_what_a_replica_refuses_and_a_stop_while_loading_keep_no_run(asked: LoadSpec) -> None:
    before = len(list_runs())
    wrong = asked.model_copy(update={"replicas": 2, "verify": "block", "temperature": 1.0})
    with pytest.raises(UserError, match=r"Replica \d \(process \d+\): dynamic-tree with these"):
        loading.execute(wrong, lambda event: None, lambda: False)
    told: list[Event] = []
    stopped = loading.execute(
        asked.model_copy(update={"replicas": 2}),
        told.append,
        lambda: any("replicas ready" in e.message for e in told if isinstance(e, Progress)),
    )
    assert (stopped.run_id, stopped.status) == ("", "cancelled")
    assert len(list_runs()) == before


def test_the_command_names_what_was_chosen() -> None:
    spec = LoadSpec(replicas=4, cluster="ray", router="round-robin", restarts=2, ray_address="a:1")
    assert spec.all_slots == 32
    words = load_command(spec).split()
    for flag, value in {
        "--replicas": "4",
        "--cluster": "ray",
        "--router": "round-robin",
        "--restarts": "2",
        "--ray-address": "a:1",
    }.items():
        assert words[words.index(flag) + 1] == value


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"router": "fastest"}, ", ".join(CHOOSERS)),
        ({"cluster": "cloud"}, "'local' or 'ray'"),
        ({"replicas": 0}, "greater than or equal to 1"),
        ({"ray_address": "a:1"}, "set cluster to ray"),
    ],
)
def test_what_does_not_go_together(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LoadSpec(**values)
    assert sentence in str(caught.value)
