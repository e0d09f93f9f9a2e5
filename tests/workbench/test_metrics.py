"""Definitions, against hand-counted examples."""

from __future__ import annotations

import numpy as np
import pytest

from engine.records import (
    Fate,
    FinishReason,
    Origin,
    RequestRecord,
    StageTimes,
    StepRecord,
    Verdict,
)
from engine.tree import root_only, tree_from_lists
from workbench import metrics
from workbench.events import RunSummary


def step(
    path: list[int], *, batch_step: int, wall: int = 100, kept: int | None = None
) -> StepRecord:
    """Over the tree 0 -> (1, 2), 1 -> (3, 4), 2 -> (5)."""
    tree = tree_from_lists([0, 1, 2, 3, 4, 5], [-1, 0, 0, 1, 1, 2], [0.0] * 6)
    tree.draft_passes = 2
    children = tree.children_of()
    fate = np.full(6, Fate.NOT_REACHED, np.uint8)
    fate[0] = Fate.ROOT
    for node, following in zip(path, [*path[1:], None], strict=True):
        for child in children[node]:
            if child == following:
                fate[child] = Fate.ACCEPTED
                break
            fate[child] = Fate.REJECTED
    emitted = [*path[1:], 9]
    origin = Origin.CORRECTION if children[path[-1]] else Origin.BONUS
    return StepRecord(
        request=0,
        step=batch_step,
        position=0,
        tree=tree,
        verdict=Verdict(path, 9, origin, fate, np.full(6, np.nan, np.float32)),
        target_logprob_M=np.zeros(6, np.float32),
        emitted=emitted,
        num_kept=len(emitted) if kept is None else kept,
        emitted_logprob=np.zeros(len(emitted), np.float32),
        top2_gap=np.zeros(len(emitted), np.float32),
        times=StageTimes(draft=30, score=wall - 40, unaccounted=10),
        batch_step=batch_step,
    )


@pytest.fixture
def summary() -> RunSummary:
    # accepted 1 and 4 (bonus); 2 (correction at 2); nothing (correction at the root)
    paths = ([0, 1, 4], [0, 2], [0])
    return metrics.summarise(step(path, batch_step=at) for at, path in enumerate(paths))


def test_counts(summary: RunSummary) -> None:
    assert (summary.steps, summary.drafted, summary.accepted, summary.emitted) == (3, 15, 3, 6)
    assert summary.draft_passes == 6
    assert summary.histogram == [1, 1, 1]
    assert summary.decode_ns == 300
    assert summary.stages_ns["draft"] == 90
    assert summary.tokens_per_step == metrics.tokens_per_step(6, 3) == 2.0
    assert summary.acceptance_rate == metrics.acceptance_rate(3, 15) == 0.2
    assert summary.tokens_per_second == metrics.tokens_per_second(6, 300)


def test_acceptance_by_depth_and_rank_is_conditional(summary: RunSummary) -> None:
    # depth 1 tested: 1 | 1, 2 | 1, 2; accepted: 1 and 2. Depth 2 tested: 3, 4 | 5; accepted: 4
    assert summary.tested_at_depth == [0, 5, 3]
    assert summary.accepted_at_depth == [0, 2, 1]
    assert metrics.acceptance_by_depth(summary) == [2 / 5, 1 / 3]
    # rank 0 tested: 1, 3 | 1, 5 | 1; rank 1: 4 | 2 | 2
    assert summary.tested_at_rank == [5, 3]
    assert metrics.acceptance_by_rank(summary) == [1 / 5, 2 / 3]


def test_acceptance_vector_is_marginal(summary: RunSummary) -> None:
    # parents reached: 0 and 1 | 0 and 2 | 0
    assert summary.parents_reached == 5
    assert metrics.acceptance_vector(summary) == [1 / 5, 2 / 5]
    assert sum(metrics.acceptance_vector(summary)) <= 1


def test_a_pass_over_a_batch_is_timed_once() -> None:
    batch = [step([0, 1], batch_step=0), step([0], batch_step=0), step([0], batch_step=1)]
    summary = metrics.summarise(batch)
    assert (summary.steps, summary.passes, summary.decode_ns) == (3, 2, 200)
    assert summary.stages_ns["score"] == 120
    assert metrics.step_ns(summary) == 100


def test_plain_decoding_drafts_nothing() -> None:
    record = step([0], batch_step=0)
    record.tree = root_only(3)
    record.verdict = Verdict([0], 9, Origin.BONUS, np.zeros(1, np.uint8), np.zeros(1, np.float32))
    summary = metrics.summarise([record])
    assert (summary.acceptance_rate, summary.tokens_per_step) == (0.0, 1.0)
    assert metrics.acceptance_vector(summary) == []
    assert metrics.acceptance_by_depth(summary) == []


def test_nothing_is_divided_by_zero() -> None:
    empty = RunSummary()
    assert empty.tokens_per_second == empty.tokens_per_step == empty.acceptance_rate == 0.0
    assert metrics.live_speedup(empty, 100) is None
    assert metrics.waterfall(empty, 100.0).measured == 0.0
    assert metrics.latency_reduction(0, 5) == 0.0


def test_cut_tokens_count_as_emitted_and_not_as_kept() -> None:
    summary = metrics.summarise([step([0, 1, 4], batch_step=0, kept=1)])
    assert (summary.emitted, summary.kept, summary.accepted) == (3, 1, 2)


def test_live_speedup_and_waterfall_end_at_the_same_figure(summary: RunSummary) -> None:
    plain = 80.0
    falls = metrics.waterfall(summary, plain)
    assert falls.ideal == 2.0
    assert falls.scored == pytest.approx(2.0 * 80 / 60)
    assert falls.drafted == pytest.approx(2.0 * 80 / 90)
    assert falls.measured == pytest.approx(2.0 * 80 / 100)
    assert metrics.live_speedup(summary, 80) == pytest.approx(falls.measured)


def test_shares_add_up(summary: RunSummary) -> None:
    shares = metrics.stage_shares(summary)
    assert list(shares) == list(metrics.STAGES)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_ratios() -> None:
    assert metrics.speedup(300, 200) == 1.5
    assert metrics.latency_reduction(300, 200) == pytest.approx(100 / 3)
    assert metrics.latency_reduction(100, 150) == pytest.approx(-50)


def test_repetition_is_weighted_by_ngrams() -> None:
    def record(kept: int, repetition: float) -> RequestRecord:
        return RequestRecord(
            0, "", "", 0, 0, "", [], list(range(kept)), "", FinishReason.LENGTH,
            1, kept, 0, 0, 5, 7, repetition,
        )  # fmt: skip

    assert metrics.repetition_share([1, 2] * 8) == pytest.approx(7 / 9)
    assert metrics.repetition_share([1] * 7) == 0.0
    summary = metrics.summarise([], [record(17, 0.5), record(7, 0.0), record(37, 0.0)])
    assert summary.repetition == pytest.approx(10 * 0.5 / 40)
    assert (summary.requests, summary.prefill_ns) == (3, 15)


def test_summaries_round_trip_through_json(summary: RunSummary) -> None:
    assert metrics.summary_from_json(summary.as_json()) == summary
    assert metrics.summary_from_json({}) == RunSummary()
