"""Acceptance read off wide trees, against runs that drafted the smaller ones."""

from __future__ import annotations

import numpy as np
import pytest

from engine.serving.simulate.acceptance import MeasuredSteps
from tests.engine.serving.simulate.known import measured, wide_run
from tests.engine.tiny import decode_all, engine_for, requests, tiny


def test_all_nodes_give_what_was_accepted():
    steps = measured()
    records = sorted(wide_run()[2], key=lambda step: (step.request, step.position))
    counts = steps.of_best()
    assert counts[:, -1].tolist() == [record.verdict.num_accepted for record in records]
    assert (counts[:, 0] == 0).all()
    assert (np.diff(counts.astype(int), axis=1) >= 0).all()
    assert (np.diff(steps.reach_SN.astype(float).cumsum(1), axis=1) >= 0).all()
    accepted = steps.rank_SD < 255
    assert accepted.sum(axis=1).tolist() == counts[:, -1].tolist()


def test_prefixes_of_the_order_are_trees():
    """A node never stands before its parent: depths of the accepted ones rise one by one."""
    steps = measured()
    for depth_N, taken_N in zip(steps.depth_SN, steps.taken_SN, strict=True):
        assert depth_N[taken_N].tolist() == list(range(1, taken_N.sum() + 1))


@pytest.mark.parametrize(
    ("method", "options", "accepted"),
    [
        ("speculative", {"length": 3}, lambda steps: steps.of_expansion((1, 1, 1))),
        ("static-tree", {"expansion": "3,1"}, lambda steps: steps.of_expansion((3, 1))),
        ("dynamic-tree", {"policy": "best-first", "nodes": 6, "depth": 5, "top_k": 4},
         lambda steps: steps.of_best()[:, 6]),
    ],
)  # fmt: skip
def test_smaller_trees_accept_as_where_they_are_drafted(method, options, accepted):
    """Walking a measured run gives the tokens per step of a run with those trees."""
    target, draft, _ = wide_run()
    real = decode_all(engine_for(method, options, target, draft), requests(5, max_new_tokens=80))[1]
    per_step = np.mean([len(step.emitted) for step in real])
    steps, tokens, passes = measured(), 0, 0
    table = accepted(steps)
    for request in range(steps.num_requests):
        at = 0
        while at < 80:
            emitted = int(table[steps.at(np.array([request]), np.array([at]))[0]]) + 1
            at, tokens, passes = at + emitted, tokens + emitted, passes + 1
    assert tokens / passes == pytest.approx(per_step, rel=0.12)


def test_a_walk_depends_on_seed_and_request_alone():
    steps = measured()
    source, start = steps.walk(3, range(20))
    assert [array[7] for array in steps.walk(3, range(20))] == [source[7], start[7]]
    assert steps.walk(3, [7])[0][0] == source[7]
    assert set(source) == set(range(steps.num_requests))
    assert not np.array_equal(steps.walk(4, range(20))[1], start)
    around = steps.at(source, start + 1000)
    assert ((around >= 0) & (around < steps.num_steps)).all()
    assert (steps.request_S[around] == np.unique(steps.request_S)[source]).all()


def test_walks_begin_at_every_measured_token_alike():
    records = sorted(wide_run()[2], key=lambda step: (step.request, step.position))
    cut = records[0].request
    kept = [step for step in records if step.request != cut] + records[:3]
    steps = MeasuredSteps.from_steps(kept)
    share = sum(len(step.emitted) for step in records[:3]) / sum(len(s.emitted) for s in kept)
    source, _ = steps.walk(1, range(4000))
    assert share < 0.1
    assert (source == 0).mean() == pytest.approx(share, abs=0.02)


def test_files_hold_all_of_it(tmp_path):
    steps = measured()
    steps.save(tmp_path / "steps.npz")
    again = MeasuredSteps.load(tmp_path / "steps.npz")
    assert np.array_equal(again.of_best(), steps.of_best())
    assert np.array_equal(again.of_expansion((2, 2)), steps.of_expansion((2, 2)))
    assert np.allclose(again.reach_SN, steps.reach_SN, atol=1e-3)
    source, start = steps.walk(0, range(9))
    assert np.array_equal(again.at(source, start), steps.at(source, start))
    np.savez(tmp_path / "other.npz", reach=[0.0])
    with pytest.raises(ValueError, match="no measured steps"):
        MeasuredSteps.load(tmp_path / "other.npz")


def test_steps_without_drafts_say_nothing():
    plain = decode_all(engine_for("autoregressive", {}, tiny(), None), requests(1))[1]
    with pytest.raises(ValueError, match="drafted nothing"):
        MeasuredSteps.from_steps(plain)
