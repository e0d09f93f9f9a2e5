"""Policy auto: calibration from verdicts, rates under costs, and when it does not speculate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.calibration import PRIOR_WEIGHT, Calibration
from engine.costs import PassCost
from engine.drafters import auto
from engine.drafters.auto import _Plan
from tests.engine.tiny import decode_all, engine_for, near, requests, tiny


def test_the_prior_takes_the_draft_at_its_word():
    fresh = Calibration()
    for p in (0.02, 0.3, 0.7, 0.95):
        assert math.exp(fresh.log_chance(0, math.log(p))) == pytest.approx(p, rel=0.4)


def test_counts_move_the_chance_of_their_cell_alone():
    calibration = Calibration()
    before = calibration.log_chance(0, math.log(0.5))
    many = 200
    calibration.add(
        np.full(many, 1), np.full(many, math.log(0.5)), np.arange(many) % 4 == 0
    )  # a quarter of second choices
    assert math.exp(calibration.log_chance(1, math.log(0.5))) == pytest.approx(0.25, abs=0.02)
    assert calibration.log_chance(0, math.log(0.5)) == before
    assert calibration.log_chance(9, math.log(0.5)) != calibration.log_chance(1, math.log(0.5))


def test_it_learns_from_children_of_accepted_nodes_only():
    target = tiny()
    _, steps = decode_all(engine_for("static-tree", {}, target, near(target)), requests())
    calibration = Calibration()
    for step in steps:
        calibration.learn(step.tree, step.verdict)
    stored = calibration.as_json()
    tested = sum(
        1
        for step in steps
        for node in range(1, step.tree.num_nodes)
        if int(step.tree.parents_M[node]) in step.verdict.path_A
    )
    assert np.sum(stored["tested"]) == tested
    assert np.sum(stored["accepted"]) == sum(step.verdict.num_accepted for step in steps)
    again = Calibration.from_json(stored)
    assert again.log_chance(0, -0.3) == calibration.log_chance(0, -0.3)
    assert PRIOR_WEIGHT > 0


def test_costs_between_what_was_measured():
    cost = PassCost((1, 4, 8), (100, 300), ((1.0, 2.0, 4.0), (2.0, 3.0, 5.0)))
    assert cost.at(100)[[1, 4, 6, 8]].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert cost.at(200)[4] == 2.5
    assert cost.at(10_000)[8] == 5.0


@pytest.fixture
def flat() -> np.ndarray:
    """A target that scores 1 to 9 nodes in 10 ms."""
    return np.array([0.0, *[10.0] * 9, *[1000.0] * 8])


def test_nodes_are_kept_while_they_raise_the_rate(flat):
    plan = _Plan(flat, np.array([0.0, 0.1, 0.1]))
    reach = np.array([0.9, 0.8, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01])
    assert plan.best_size(reach, 0.5, 16) == 8, "free up to the cliff, and not over it"
    steep = _Plan(np.arange(18.0) * 10, np.array([0.0, 0.1, 0.1]))
    assert steep.best_size(np.array([0.3, 0.2]), 0.1, 16) == 0, "a node costs as much as a token"


def test_a_pass_is_made_only_where_it_pays(flat):
    cheap, dear = np.array([0.0, 0.1, 0.1]), np.array([0.0, 9.0, 9.0])
    nothing, root = np.zeros(0), np.ones(1)
    assert _Plan(flat, cheap).width(nothing, root, 0.6, 0.0, 16) == 1
    assert _Plan(flat, dear).width(nothing, root, 0.6, 0.0, 16) == 0
    assert _Plan(flat, cheap).width(nothing, root, 0.001, 0.0, 16) == 0


def test_where_drafting_never_pays_it_only_probes(monkeypatch):
    target = tiny()
    slow = PassCost((1, 64), (1, 2), ((50.0, 50.0), (50.0, 50.0)))
    fast = PassCost((1, 64), (1, 2), ((1.0, 1.0), (1.0, 1.0)))
    draft = near(target)
    costs = iter([fast, slow])
    monkeypatch.setattr(auto, "measure", lambda runner, most: next(costs))
    monkeypatch.setattr(auto, "PROBE_EVERY", 5)
    engine = engine_for("dynamic-tree", {"policy": "auto"}, target, draft)
    _, steps = decode_all(engine, requests(1, max_new_tokens=40))
    drafted = [step.tree.num_drafted > 0 for step in steps]
    assert 0 < sum(drafted) <= len(steps) // 5
    costs = iter([slow, fast])
    engine = engine_for("dynamic-tree", {"policy": "auto"}, target, draft)
    _, steps = decode_all(engine, requests(1, max_new_tokens=40))
    assert sum(step.tree.num_drafted > 0 for step in steps) > len(steps) // 2
