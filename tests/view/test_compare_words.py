"""What the Compare page says: costs, durations, progress, why no speedup is printed."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import UserError
from workbench.comparing.result import CompareSpec
from workbench.events import Progress
from workbench.measuring import Measuring
from workbench.store.index import RunEntry
from workbench.store.schema import RunStatus
from workbench.sweeping.spec import SweepSpec
from workbench.view.compare_form import (
    arm_of,
    build_compare,
    build_named_sweep,
    cost,
    duration,
    sweep_name,
)
from workbench.view.compare_runs import arms_of, shared_comparison, why_no_speedup
from workbench.view.compare_words import ended, told

FIELDS = {
    "methods": ["speculative", "dynamic-tree:nodes=[4,8]"], "workloads": ["code"],
    "dtypes": ["float32"], "target": "pycode-target", "repeats": 2, "max_new_tokens": 10,
    "baselines": ["hf-generate"],
}  # fmt: skip


def test_the_cost_counts_plain_decoding_lists_and_settings() -> None:
    spec = build_compare(FIELDS | {"dtypes": ["float32", "bfloat16"]})
    found = cost(spec, prompts=3, pace=100.0)
    assert (found.arms, found.decodes, found.tokens) == (5, 5 * 3 * 2 * 2, 600)
    assert found.seconds == pytest.approx(6.0)
    assert found.sentence(spec) == (
        "5 arms × 3 prompts × 2 repeats × 2 settings = 60 decodes of 10 tokens; less than a minute "
        "at the pace of plain decoding here."
    )
    named = build_compare(FIELDS | {"methods": ["autoregressive", "hf-generate"]})
    assert cost(named, prompts=1).arms == 2, "what is named is not counted again"


def test_a_sweep_measures_plain_decoding_in_each_part() -> None:
    spec = build_named_sweep(FIELDS, "s")
    assert isinstance(spec, SweepSpec)
    assert len(spec.cells()) == 4
    assert cost(spec, prompts=1).arms == 5
    assert cost(spec.model_copy(update={"together": 1}), prompts=1).arms == 8


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({}, "", "has no name"),
        ({}, "a b", "The name is 'a b'"),
        ({"methods": ["speculative"]}, "s", "One cell is no sweep"),
        ({"workloads": []}, "s", "No workload"),
        ({"target": ""}, "s", "target model is empty"),
        ({"dtypes": []}, "s", "No dtype"),
    ],
)
def test_what_is_missing_is_named(change: dict, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        build_named_sweep(FIELDS | change, name)


def test_arms_from_what_was_typed() -> None:
    assert arm_of("dynamic-tree", {"nodes": "4, 8", "depth": " 3 ", "policy": ""}) == (
        "dynamic-tree:nodes=[4,8],depth=3"
    )
    assert arm_of("static-tree", {"expansion": "2,2,1 | 3"}, ["expansion"]) == (
        "static-tree:expansion=[2,2,1|3]"
    )
    assert arm_of("static-tree", {"expansion": "2,2,1"}, ["expansion"]) == (
        "static-tree:expansion=2,2,1"
    )
    assert sweep_name(["x", "dynamic-tree:nodes=[4,8],top_k=[1,2],depth=3"]) == (
        "dynamic-tree-nodes-top-k"
    )
    assert sweep_name(["dynamic-tree:nodes=[4", "speculative"]) == "sweep"


def test_lengths_of_time() -> None:
    said = [duration(seconds) for seconds in (3, 61, 170, 5400, 9000, 90_000)]
    assert said == [
        "less than a minute",
        "about 1 minute",
        "about 3 minutes",
        "about 1.5 hours",
        "about 2.5 hours",
        "about 25 hours",
    ]


def test_progress_in_words() -> None:
    spec = CompareSpec(methods=["a", "b:n=[1,2]"], workloads=["code"])
    start = told(Measuring(kind="compare", status="starting", spec=spec))
    assert (start.title, start.detail) == ("Comparing 3 methods on code", "Starting the worker …")
    loading = Measuring("compare", "running", spec, Progress("load", "Loading \x1b[31m", 0.9))
    assert told(loading).detail == "Loading \\x1b[31m"
    assert (told(loading).left, told(loading).fraction) == ("Nothing is timed yet", 0.0)
    half = Measuring(
        "compare", "running", spec, Progress("measure", "x", 0.5), fraction=0.5, seconds_left=130.0
    )
    assert told(half).left == "50% done, about 2 minutes left"
    assert told(half, stopping=True).detail.startswith("Stopping")


def test_endings_in_words() -> None:
    assert ended(Measuring()) is None
    assert ended(Measuring("compare", "finished")) is None
    assert ended(Measuring("compare", "failed", error="No.", wrong_input=True)).title == (
        "The comparison was not started"
    )
    assert "Nothing was complete" in ended(Measuring("compare", "cancelled")).text
    assert "can go on" in ended(Measuring("sweep", "cancelled", result="s")).text
    assert "can go on" in ended(Measuring("sweep", "interrupted", error="It died.")).text


# --- stored runs ----------------------------------------------------------------------------


def entry(run_id: str, kept: int = 64, **spec: Any) -> RunEntry:
    values = {"method": "dynamic-tree", "options": {}, "workload": "code", "target": "t"}
    return RunEntry(
        run_id, RunStatus.FINISHED, "", values | spec, mode="eager", summary={"kept": kept}
    )


def test_why_no_speedup_is_printed() -> None:
    alike = why_no_speedup([entry("a"), entry("b", method="autoregressive")])
    assert len(alike) == 1
    assert "not in turn" in alike[0]
    other = " ".join(
        why_no_speedup(
            [entry("a"), entry("b", kept=32, workload="edit", target="u", dtype="float16")]
        )
    )
    for word in ("prompts differ", "target models differ", "dtypes differ", "different numbers"):
        assert word in other
    assert "None of them is plain decoding" in other


def test_arms_of_one_comparison_are_known() -> None:
    both = [entry("a", comparison="compare-1"), entry("b", comparison="compare-1")]
    assert shared_comparison(both) == "compare-1"
    assert shared_comparison([*both, entry("c")]) == ""
    assert shared_comparison([entry("a"), entry("b")]) == ""


def test_runs_become_arms() -> None:
    chosen = [
        entry("a", options={"nodes": 4}),
        entry("b", method="autoregressive"),
        entry("c", arm="speculative:length=3"),
    ]
    assert arms_of(chosen) == ["dynamic-tree:nodes=4", "speculative:length=3"]
