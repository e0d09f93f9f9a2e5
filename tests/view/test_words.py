"""What the view says: reasons of fates, headlines, figures, safe text."""

import numpy as np
import pytest
from scripted_runs import random_step, scripted_steps

from engine.records import Fate, Origin, StageTimes, StepRecord, Verdict
from engine.tree import tree_from_lists
from workbench import metrics
from workbench.events import Progress, RunSummary
from workbench.spec import RunSpec
from workbench.view.headline import figures, headline
from workbench.view.live import Live
from workbench.view.reasons import Reasons
from workbench.view.visible import node_label, safe_text


def a_step(*, next_token: int, path: list[int], fates: list[Fate], origin: Origin) -> StepRecord:
    """root 0 with children 1, 2; 1 has children 3, 4; 5 was pruned."""
    tree = tree_from_lists([10, 11, 12, 13, 14, 15], [-1, 0, 0, 1, 1, 2], [0.0] + [-1.0] * 5)
    tree.num_nodes = 5
    tree.round_pruned_M[5] = 2
    accept = np.full(5, np.nan, np.float32)
    accept[1] = 0.25
    emitted = [*(int(tree.tokens_M[n]) for n in path[1:]), next_token]
    return StepRecord(
        request=0, step=0, position=4, tree=tree,
        verdict=Verdict(path, next_token, origin, np.array(fates, np.uint8), accept),
        target_logprob_M=np.full(6, -1, np.float32), emitted=emitted, num_kept=len(emitted),
        emitted_logprob=np.zeros(len(emitted), np.float32),
        top2_gap=np.ones(len(emitted), np.float32), times=StageTimes(1, 1, 1, 1, 1, 1, 1),
    )  # fmt: skip


PIECES = ["root", "one", "two", "three", "four", "five"]


def test_reasons_after_a_correction():
    fates = [Fate.ROOT, Fate.ACCEPTED, Fate.NOT_REACHED, Fate.REJECTED, Fate.REJECTED]
    record = a_step(next_token=99, path=[0, 1], fates=fates, origin=Origin.CORRECTION)
    why = Reasons(record, pieces_M=PIECES, emitted="other")
    assert "agreed" in why.of_node(1)
    assert "25%" in why.of_node(1)
    assert why.of_node(2) == "Never tested: its sibling “one” was accepted first."
    assert why.of_node(3) == "The target chose “other”, which was not drafted here."
    assert "round 2" in why.of_node(5)
    assert "none of 2 drafted ones" in why.of_emitted()


def test_reasons_after_a_bonus():
    fates = [Fate.ROOT, Fate.REJECTED, Fate.ACCEPTED, Fate.NOT_REACHED, Fate.NOT_REACHED]
    record = a_step(next_token=99, path=[0, 2], fates=fates, origin=Origin.BONUS)
    why = Reasons(record, pieces_M=PIECES, emitted="next")
    assert why.of_node(1).startswith("The target chose its sibling “two”.")
    assert why.of_node(3) == "Never tested: its branch was left at “one”."
    assert "Every drafted token on this path was accepted" in why.of_emitted()


def test_every_node_of_any_step_has_a_reason():
    for seed in range(30):
        step = random_step(np.random.default_rng(seed), 0, 20, num_pruned=4)
        why = Reasons(step.record, pieces_M=step.pieces_M, emitted="x")
        assert all(why.of_node(node).endswith((".", "time.")) for node in range(24))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("def f(x):\n\treturn", "def f(x):\n\treturn"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("naïve 文字 😀", "naïve 文字 😀"),
        ("\r\n", "\\x0d\n"),
    ],
)
def test_safe_text(text: str, shown: str):
    assert safe_text(text) == shown
    safe_text(text).encode()


def test_labels_are_one_short_line():
    assert node_label("a b\n") == "a·b\\n"
    assert node_label("·" * 12) == "·×12"
    assert node_label("x" * 40) == "x" * 12 + "…"


def test_figures_of_nothing_divide_by_nothing():
    assert [figure["value"] for figure in figures(RunSummary(), None)] == ["–", "–", "–", "–", "0"]


def test_figures_follow_the_metrics():
    summary = metrics.summarise([step.record for step in scripted_steps(12)])
    values = {figure["label"]: figure["value"] for figure in figures(summary, 6_000_000)}
    assert values["tokens per step"] == f"{summary.tokens_per_step:.2f}"
    estimate = metrics.live_speedup(summary, 6_000_000)
    assert values["of plain speed, estimated"] == f"≈ {estimate:.2f}×"
    assert values["steps"] == "12"


SPEC = RunSpec(prompt="x", max_new_tokens=100)


def test_headline_of_a_run_under_way():
    loading = Live(
        status="starting", active=True, spec=SPEC, progress=Progress("load", "Loading it", 0.5)
    )
    assert headline(loading)["state"] == "Loading it …"
    assert headline(loading)["fraction"] == 0.5
    summary = metrics.summarise([step.record for step in scripted_steps(5)])
    under_way = headline(Live(status="running", active=True, spec=SPEC, summary=summary))
    assert under_way["state"] == f"Decoding: {summary.kept} of 100 tokens"
    assert 0 < under_way["fraction"] <= 1


@pytest.mark.parametrize(
    ("plain_step_ns", "words"),
    [(20_000_000, "it pays"), (1_000_000, "does not pay"), (None, "")],
)
def test_a_finished_run_says_whether_it_pays_by_estimate(plain_step_ns: int | None, words: str):
    summary = metrics.summarise([step.record for step in scripted_steps(12)])
    live = Live(status="finished", spec=SPEC, summary=summary, plain_step_ns=plain_step_ns)
    said = headline(live)
    assert said["state"].startswith("Finished")
    assert words in said["detail"]
    assert "dynamic-tree" in said["setup"]
