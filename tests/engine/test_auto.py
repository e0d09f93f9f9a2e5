"""Policy auto: what it learns, what a tree is worth, and when it does not speculate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.calibration import PRIOR_WEIGHT, RANKS, Calibration, bin_of, kind_of
from engine.costs import Known, PairCost, PassCost, Profile, _rising, measure
from engine.depths import Depths
from engine.drafters import auto
from engine.pace import Pace
from engine.sampling import Sampling
from engine.tree import Children
from engine.worth import Worth
from tests.engine.tiny import decode_all, engine_for, near, requests, tiny, tokens_of

AUTO = {"policy": "auto"}


def constant(ms: float) -> PassCost:
    return PassCost((1, 64), (1, 2), ((ms, ms), (ms, ms)))


def linear(first: float, each: float) -> PassCost:
    row = (first, first + 63 * each)
    return PassCost((1, 64), (1, 2), (row, row))


# --- acceptance ---


def test_the_prior_takes_the_draft_at_its_word():
    fresh = Calibration()
    for p in (0.02, 0.3, 0.7, 0.95):
        assert fresh.chance(0, math.log(p)) == pytest.approx(p, rel=0.4)
    assert fresh.chance(0, math.nan) == fresh.chance(0, -20.0)


def test_counts_move_the_chance_of_their_cell_alone():
    calibration = Calibration()
    before = calibration.chance(0, math.log(0.5))
    many = 200
    calibration.add(
        np.full(many, 1), np.full(many, math.log(0.5)), np.arange(many) % 4 == 0
    )  # a quarter of second choices
    assert calibration.chance(1, math.log(0.5)) == pytest.approx(0.25, abs=0.02)
    assert calibration.chance(0, math.log(0.5)) == before
    assert calibration.chance(9, math.log(0.5)) == calibration.chance(RANKS - 1, math.log(0.5))


def test_it_learns_from_children_of_accepted_nodes_only():
    target = tiny()
    _, steps = decode_all(engine_for("static-tree", {}, target, near(target)), requests())
    calibration = Calibration()
    for step in steps:
        calibration.learn(step.tree, step.verdict)
    stored = calibration.as_json()
    parents = [
        [int(step.tree.parents_M[node]) for node in range(1, step.tree.num_nodes)] for step in steps
    ]
    reached = [
        [p for p in of_step if p in step.verdict.path_A]
        for of_step, step in zip(parents, steps, strict=True)
    ]
    accepted = sum(step.verdict.num_accepted for step in steps)
    assert np.sum(stored["tested"]) == calibration.num_tested == sum(map(len, reached))
    assert np.sum(stored["accepted"]) == np.sum(stored["continued"]) == accepted
    assert np.sum(stored["parents"]) == sum(len(set(of_step)) for of_step in reached)
    again = Calibration.from_json(stored)
    assert again.chance(0, -0.3) == calibration.chance(0, -0.3)
    assert again.continues(None) == calibration.continues(None)


def test_learning_step_by_step_is_counting_all_at_once():
    target = tiny()
    _, steps = decode_all(engine_for("static-tree", {}, target, near(target)), requests())
    by_step, at_once = Calibration(), Calibration()
    for step in steps:
        by_step.learn(step.tree, step.verdict)
        tested = np.isin(step.verdict.fate_N, (1, 2))
        at_once.add(
            step.tree.rank_M[: len(tested)][tested],
            step.tree.draft_logprob_M[: len(tested)][tested],
            step.verdict.fate_N[tested] == 1,
        )
    assert by_step.tested_RB == at_once.tested_RB
    assert by_step.accepted_RB == at_once.accepted_RB
    assert by_step.chance(0, -0.1) == at_once.chance(0, -0.1)


def test_stored_counts_are_limited_so_that_new_ones_count():
    stored = Calibration()
    many = 10_000
    stored.add(np.zeros(many, int), np.full(many, -0.3), np.zeros(many, bool))
    stored.add_parents(np.full(many, np.nan), np.zeros(many, bool))
    limited = stored.limited(60.0)
    assert limited.num_tested == 60
    assert limited.chance(0, -0.3) < 0.12
    limited.add(np.zeros(60, int), np.full(60, -0.3), np.ones(60, bool))
    assert limited.chance(0, -0.3) == pytest.approx(0.5, abs=0.05)
    assert limited.continues(None) < 0.1
    assert stored.num_tested == many, "a copy"


def test_kinds_are_told_apart():
    assert kind_of(Children.FIXED, greedy=True) == "greedy"
    assert kind_of(Children.FIXED, greedy=False) == "fixed"
    assert kind_of(Children.COUPLED, greedy=False) == "coupled"


def test_damaged_counts_are_refused():
    stored = Calibration().as_json()
    with pytest.raises(ValueError):
        Calibration.from_json(stored | {"tested": [[0.0] * 3] * RANKS})
    with pytest.raises(KeyError):
        Calibration.from_json({})
    assert PRIOR_WEIGHT > 0
    assert bin_of(0.0) == len(stored["tested"][0]) - 1


# --- costs ---


def test_costs_between_what_was_measured():
    cost = PassCost((1, 4, 8), (100, 300), ((1.0, 2.0, 4.0), (2.0, 3.0, 5.0)))
    assert cost.at(100)[[1, 4, 6, 8]].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert cost.at(200)[4] == 2.5
    assert cost.at(10_000)[8] == 5.0
    assert cost.at(100, 12)[12] == pytest.approx(6.0), "on along the line"
    crowded = PassCost((1, 4, 8, 16), (1,), ((1.0, 25.0, 40.0, 44.0),))
    assert crowded.at(1, 32)[32] == pytest.approx(52.0), "of the larger half"
    assert PassCost.from_json(cost.as_json()) == cost
    assert len(cost.at(100, 4)) == 5


@pytest.mark.parametrize("ms", [[[1.0]], [[1.0, -2.0]], [[1.0, math.nan]], []])
def test_damaged_costs_are_refused(ms):
    with pytest.raises(ValueError):
        PassCost.from_json({"nodes": [1, 2], "contexts": [5], "ms": ms})


def test_a_reading_out_of_line_is_shared_with_its_neighbours():
    assert _rising([1.0, 5.0, 3.0, 6.0]) == [1.0, 4.0, 4.0, 6.0]
    assert _rising([3.0, 2.0, 1.0]) == [2.0, 2.0, 2.0]


def test_sizes_are_measured_in_turn_and_the_runners_left_free(monkeypatch):
    target = tiny()
    engine = engine_for("speculative", {"length": 5}, target, near(target))
    runners = engine._target.runner, engine._drafter._runner
    taken = []

    def timed(runner, size, **_):
        taken.append((runner is runners[0], size))
        return float(size)

    monkeypatch.setattr("engine.costs._time", timed)
    shares = []
    found = measure(
        *runners, target_nodes=(1, 2, 4), draft_nodes=(1, 2), contexts=(4, 9), rounds=3,
        on_progress=shares.append,
    )  # fmt: skip
    assert [size for is_target, size in taken if is_target] == [1, 2, 4] * 6
    assert found.target.ms_CS == ((1.0, 2.0, 4.0),) * 2
    assert found.draft.ms_CS == ((1.0, 2.0),) * 2
    assert shares[-1] == 1.0
    assert not runners[0].active_B.any()
    assert not runners[1].active_B.any()


# --- worth ---


@pytest.fixture
def flat() -> list[float]:
    """A target that scores up to 8 drafted nodes in 10 ms."""
    return [*[10.0] * 9, *[1000.0] * 8]


def test_nodes_are_kept_while_they_are_worth_their_time(flat):
    cheap = [0.0, 0.1, 0.1]
    reach = [0.9, 0.8, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01]
    assert Worth(flat, cheap, most=16).best(reach)[1] == 8, "free up to the cliff, not over it"
    steep = Worth([n * 10.0 for n in range(1, 18)], cheap, most=16)
    assert steep.best([0.3, 0.2]) == (0.0, 0), "a node costs as much as a token"


def test_time_is_dearer_where_tokens_come_faster():
    target = [10.0 + n for n in range(17)]
    reach = [0.5, 0.2, 0.12, 0.08]
    slow = Worth(target, [0.0, 1.0], most=16)
    fast = Worth(target, [0.0, 1.0], most=16, rate=0.25)
    assert slow.best(reach)[1] == 3
    assert fast.best(reach)[1] == 1
    assert fast.rate == 0.25
    assert Worth(target, [0.0, 1.0], most=16, rate=0.01).rate == 0.1, "never below plain"


def test_a_pass_is_made_only_where_it_pays(flat):
    cheap, dear = [0.0, 0.1, 0.1], [0.0, 9.0, 9.0]
    first = {"levels": 1}
    assert Worth(flat, cheap, most=16).width([], [0.6], **first) == 1
    assert Worth(flat, dear, most=16).width([], [0.6], **first) == 0
    assert Worth(flat, cheap, most=16).width([], [0.001], **first) == 0
    assert Worth(flat, cheap, most=16, pass_ms=9.0).width([], [0.6], **first) == 0


def test_a_chain_may_pay_where_its_first_node_does_not():
    """Two nodes cost more than one pass is worth; eight cost no more than two."""
    step = [10.0, *[17.0] * 15]
    worth = Worth(step, [0.0, 0.5, 0.5], most=15)
    assert worth.width([], [0.68], levels=1) == 0
    assert worth.width([], [0.68], levels=4) == 1
    assert worth.could_pay(4)
    assert not worth.could_pay(0)


def test_a_draft_as_dear_as_its_target_can_never_pay():
    same = [10.0 + n for n in range(18)]
    worth = Worth(same, [0.0, *same], most=16)
    assert not worth.could_pay(16)
    assert not worth.probe_pays(10**6, 4, share=0.01)
    assert worth.width([], [1.0], levels=16) == 0


def test_probes_take_their_share_of_the_time(flat):
    worth = Worth(flat, [0.0, 2.0, 2.0], most=16)
    assert not worth.probe_pays(19, 4, share=0.01)
    assert worth.probe_pays(20, 4, share=0.01)


# --- the drafter ---


def with_costs(monkeypatch, target: PassCost, draft: PassCost) -> None:
    monkeypatch.setattr(auto, "measure", lambda *runners, **how: PairCost(target, draft))


def test_where_drafting_can_never_pay_it_does_not(monkeypatch):
    """The draft is the target itself: every token would be accepted, and none would be cheaper."""
    target = tiny()
    with_costs(monkeypatch, linear(50.0, 1.0), linear(50.0, 1.0))
    engine = engine_for("dynamic-tree", AUTO, target, target)
    _, steps = decode_all(engine, requests(1, max_new_tokens=60))
    assert len(steps) == 60
    assert all(step.tree.num_drafted == 0 for step in steps)


def test_where_drafting_hardly_pays_it_only_probes(monkeypatch):
    target = tiny()
    with_costs(monkeypatch, constant(50.0), constant(40.0))
    monkeypatch.setattr(auto, "PROBE_SHARE", 0.1)
    engine = engine_for("dynamic-tree", AUTO, target, near(target, noise=4.0))
    _, steps = decode_all(engine, requests(2, max_new_tokens=80))
    drafted = [step.tree.num_drafted > 0 for step in steps]
    assert 0 < sum(drafted) <= len(steps) // 6


def test_a_cheap_draft_is_used_and_what_is_emitted_stays(monkeypatch):
    target = tiny()
    with_costs(monkeypatch, constant(50.0), constant(1.0))
    plain, _ = decode_all(engine_for("autoregressive", {}, target, None), requests(3))
    engine = engine_for("dynamic-tree", AUTO, target, near(target))
    done, steps = decode_all(engine, requests(3))
    assert tokens_of(done) == tokens_of(plain)
    assert sum(step.tree.num_drafted > 0 for step in steps) > len(steps) // 2


def test_after_a_silence_the_draft_catches_up(monkeypatch):
    """More tokens are pending by then than a pass has room for; the draft sees all of them."""
    target = tiny()
    with_costs(monkeypatch, constant(50.0), constant(2.0))
    monkeypatch.setattr(auto, "PROBE_SHARE", 0.0)  # silent until told otherwise
    monkeypatch.setattr(auto.Calibration, "continues", lambda *_: 0.0)
    engine = engine_for("dynamic-tree", AUTO, target, target)
    engine.add(requests(1, max_new_tokens=50)[0])
    steps = [step for _ in range(20) for step in engine.step().steps]
    assert all(step.tree.num_drafted == 0 for step in steps)
    monkeypatch.undo()
    steps = [step for _ in range(5) for step in engine.step().steps]
    for step in steps:  # the draft is the target: whatever it drafts first is right
        assert step.verdict.num_accepted == step.tree.depth_M[: step.tree.num_nodes].max() > 0


def test_every_step_has_its_expectation(monkeypatch):
    target = tiny()
    with_costs(monkeypatch, constant(50.0), constant(1.0))
    engine = engine_for("dynamic-tree", AUTO, target, near(target))
    _, steps = decode_all(engine, requests(2))
    for step in steps:
        assert 1.0 <= step.tree.expected_tokens <= step.tree.num_nodes
        assert step.tree.expected_ms > 0.0
    _, steps = decode_all(engine_for("speculative", {}, target, near(target)), requests(1))
    assert all(math.isnan(step.tree.expected_ms) for step in steps)
    with_costs(monkeypatch, constant(50.0), constant(1.0))
    several = engine_for("dynamic-tree", AUTO, target, near(target), batch=2)
    _, steps = decode_all(several, requests(3))
    assert all(math.isnan(step.tree.expected_ms) for step in steps), "times are of single requests"


def test_a_profile_takes_the_place_of_measuring(monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda *_, **__: pytest.fail("measured"))
    target = tiny()
    counted = Calibration()
    counted.add(np.zeros(50, int), np.full(50, -0.3), np.ones(50, bool))
    profile = Profile(PairCost(constant(9.0), constant(0.1)), {"greedy": counted})
    asked = []

    def known(mode: str) -> Known:
        asked.append(mode)
        return Known(profile, "profile of today")

    engine = engine_for("dynamic-tree", AUTO, target, near(target), profile_for=known)
    assert asked == ["eager"]
    assert engine.setting == "profile of today"
    assert engine._drafter.calibration.chance(0, -0.3) > 0.95
    warm = engine_for(
        "dynamic-tree", AUTO, target, near(target), profile_for=known, sampling=Sampling(0.8)
    )
    assert warm._drafter.calibration.num_tested == 0, "counts of greedy runs tell nothing here"
    engine_for("speculative", {}, target, near(target), profile_for=known)
    assert len(asked) == 2, "asked only where it is used"


def test_without_a_profile_it_measures_and_says_so():
    target = tiny()
    engine = engine_for("dynamic-tree", AUTO, target, near(target))
    assert engine.setting == "costs measured in place: no profile was given"
    assert engine_for("speculative", {}, target, near(target)).setting == ""


# --- pace ---


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("engine.pace.perf_counter", clock)
    return clock


def make_step(pace: Pace, clock: Clock, *, drafting: float, rest: float) -> None:
    """A step measured beforehand at 2 ms for drafting, if it drafts, and 5 ms for the rest."""
    pace.step_begins()
    clock.now += drafting / 1e3
    pace.drafting_ends(2.0 if drafting else 0.0, 5.0)
    clock.now += rest / 1e3


def test_drafting_that_takes_longer_is_dearer(clock):
    pace = Pace()
    for _ in range(300):
        make_step(pace, clock, drafting=3.0, rest=5.0)
    assert pace.draft_scale() == pytest.approx(1.5, rel=0.01)
    assert pace.expected_ms(2.0, 5.0) == pytest.approx(8.0)


def test_a_slower_machine_moves_predictions_and_no_decision(clock):
    pace = Pace()
    for number in range(300):
        slower = 3.0 if number % 2 else 1.0
        make_step(pace, clock, drafting=2.0 * slower, rest=5.0 * slower)
    assert pace.draft_scale() == pytest.approx(1.0)
    assert pace.expected_ms(2.0, 5.0) == pytest.approx(14.0, rel=0.1)
    assert pace.expected_ms(0.0, 5.0) == pytest.approx(10.0, rel=0.1)
    for _ in range(25):
        make_step(pace, clock, drafting=2.0, rest=5.0)
    assert pace.expected_ms(2.0, 5.0) == pytest.approx(7.0, rel=0.1), "it follows within steps"


def test_plain_steps_tell_nothing_of_drafting(clock):
    pace = Pace()
    for _ in range(50):
        make_step(pace, clock, drafting=0.0, rest=10.0)
    assert pace.expected_ms(0.0, 5.0) == pytest.approx(10.0, rel=0.01)
    assert pace.draft_scale() == 1.0
    assert pace.expected_ms(2.0, 5.0) == pytest.approx(14.0, rel=0.01)


def test_what_lies_between_requests_or_took_forever_is_not_learned(clock):
    pace = Pace()
    for _ in range(100):
        make_step(pace, clock, drafting=2.0, rest=5.0)
    clock.now += 1.0
    pace.interrupted()
    make_step(pace, clock, drafting=2.0, rest=3000.0)
    before = pace.expected_ms(2.0, 5.0)
    make_step(pace, clock, drafting=2.0, rest=5.0)
    assert before == pytest.approx(7.0)
    assert pace.expected_ms(2.0, 5.0) < 2 * before, "an interruption counts for a few steps"
    for _ in range(60):
        make_step(pace, clock, drafting=2.0, rest=5.0)
    assert pace.expected_ms(2.0, 5.0) == pytest.approx(7.0, rel=0.05)


# --- several requests ---


def stepped(monkeypatch, target_cost: PassCost, *, batch: int, noise: float = 0.2):
    """Steps of requests that came together under these costs, draft passes being cheap."""
    target = tiny()
    with_costs(monkeypatch, target_cost, constant(0.5))
    monkeypatch.setattr(auto, "Depths", lambda most: Depths(0))  # as deep as the bids say
    engine = engine_for("dynamic-tree", AUTO, target, near(target, noise=noise), batch=batch)
    for request in requests(batch, max_new_tokens=40):
        engine.add(request)
    return engine, [engine.step().steps for _ in range(25)]


def test_nodes_of_all_requests_compete_for_what_a_step_can_carry(monkeypatch):
    """16 nodes are scored at one price and more at a ruinous one: the best bids have them."""
    cliff = PassCost((1, 16, 17, 64), (1, 2), ((50.0, 50.0, 5000.0, 5000.0),) * 2)
    engine, passes = stepped(monkeypatch, cliff, batch=4)
    uneven = 0
    for steps in passes:
        sizes = [step.tree.num_nodes for step in steps]
        assert sum(sizes) <= 16
        uneven += len(set(sizes)) > 1
        calibration = engine._drafter.calibration
        assert all(step.tree.expected_tokens >= 1.0 for step in steps)
        assert calibration.num_tested > 0
    assert sum(step.tree.num_drafted for step in passes[-1]) > 8
    assert uneven > 3, "an even share for each would be no auction"


def test_bids_that_win_are_the_best_of_all(monkeypatch):
    cliff = PassCost((1, 12, 13, 64), (1, 2), ((50.0, 50.0, 5000.0, 5000.0),) * 2)
    target = tiny()
    with_costs(monkeypatch, cliff, constant(0.5))
    engine = engine_for("dynamic-tree", AUTO, target, near(target), batch=3)
    drafter, seen = engine._drafter, []
    awarded = drafter._awarded

    def watched(begun):
        kept = awarded(begun)
        seen.append(([(b, kept[slot]) for slot, b in begun.items()], kept))
        return kept

    monkeypatch.setattr(drafter, "_awarded", watched)
    for request in requests(3, max_new_tokens=30):
        engine.add(request)
    for _ in range(12):
        engine.step()
    contested = 0
    for bidders, _ in seen:
        won = [b.reach[node] for b, kept in bidders for node in kept]
        lost = [b.reach[n] for b, kept in bidders for n in range(1, len(b.reach)) if n not in kept]
        if won and lost:
            assert min(won) >= max(lost)
            contested += 1
    assert contested > 5


def test_under_load_trees_shrink_and_end(monkeypatch):
    """A pass costs by the node from 8 nodes on: one request speculates, eight do not."""
    busy = PassCost((1, 8, 9, 64), (1, 2), ((50.0, 52.0, 60.0, 450.0),) * 2)
    mean = {}
    for batch in (1, 3, 8):
        _, passes = stepped(monkeypatch, busy, batch=batch, noise=1.0)
        sizes = [step.tree.num_drafted for steps in passes[5:] for step in steps]
        mean[batch] = sum(sizes) / len(sizes)
    assert mean[1] > 2.0
    assert mean[1] > mean[3] > mean[8]
    assert mean[8] < 0.5


def test_a_request_whose_drafts_fail_is_passed_over(monkeypatch):
    """Whether to draft is decided beforehand, from how the request's own trees fared."""
    target = tiny()
    counted = Calibration()  # the draft is the target: whatever it thinks of it, it is right
    for logprob in np.linspace(-8.0, -0.01, 200):
        counted.add(np.zeros(60, int), np.full(60, logprob), np.ones(60, bool))
    known = Known(Profile(PairCost(linear(50.0, 4.0), constant(1.0)), {"greedy": counted}), "")
    engine = engine_for(
        "dynamic-tree", AUTO, target, target, batch=2, profile_for=lambda mode: known
    )
    for request in requests(2, max_new_tokens=60):
        engine.add(request)
    drafter = engine._drafter
    unlucky = drafter._luck[0]
    drafted = [0, 0]
    for _ in range(30):
        unlucky.hits, unlucky.trees = 0.0, 30.0
        for slot, step in enumerate(engine.step().steps):
            drafted[slot] += step.tree.num_drafted
    assert drafted[0] < drafted[1] // 4


def test_a_budget_bounds_every_tree_and_no_token(monkeypatch):
    target = tiny()
    plain, _ = decode_all(engine_for("autoregressive", {}, target, None), requests(3))
    expected = tokens_of(plain)
    for method, options in (
        ("dynamic-tree", AUTO), ("dynamic-tree", {"policy": "eagle2", "nodes": 9}),
        ("dynamic-tree", {"policy": "best-first", "nodes": 9}), ("static-tree", {}),
        ("speculative", {"length": 6}), ("prompt-lookup", {}),
    ):  # fmt: skip
        with_costs(monkeypatch, constant(50.0), constant(1.0))
        needs = near(target) if method != "prompt-lookup" else None
        engine = engine_for(method, options, target, needs, batch=3)
        for request in requests(3):
            engine.add(request)
        budgets, done, full = {0: 0, 1: 2}, {}, 0
        while engine.busy:
            found = engine.step(budgets)
            for step in found.steps:
                step.tree.check_integrity()
                assert step.tree.num_drafted <= budgets.get(step.request, 99)
                full += step.request == 1 and step.tree.num_drafted == 2
            done |= {record.request: record.token_ids for record in found.finished}
        assert done == expected, method
        assert full > 0, method


def test_costs_of_a_batch_are_by_the_nodes_of_all(monkeypatch):
    target = tiny()
    engine = engine_for("dynamic-tree", {}, target, near(target), batch=3)
    runners = engine._target.runner, engine._drafter._runner
    asked: tuple[list, list] = [], []
    for runner, into in zip(runners, asked, strict=True):

        def counted(nodes, forward=runner.forward, into=into):
            into.append({slot: len(new.tokens_N) for slot, new in nodes.items()})
            return forward(nodes)

        monkeypatch.setattr(runner, "forward", counted)
    measure(*runners, target_nodes=(1, 2, 7), draft_nodes=(1, 2, 4), contexts=(4,), rounds=1)
    even, lopsided = {0: 3, 1: 3, 2: 2}, {0: 6, 1: 1, 2: 1}
    assert asked[0] == [{0: 1}, {0: 1, 1: 1}, {0: 3, 1: 2, 2: 2}, lopsided, even]
    drafted = [{2: 1}, {1: 1, 2: 1}, {0: 2, 1: 1, 2: 1}]
    assert asked[1] == [one for one in drafted for _ in range(2)]
    assert not any(runner.active_B.any() for runner in runners)


def test_a_further_slot_costs_more_than_a_further_node():
    """8 ms by the slot and 0.5 by the row, measured over four slots, one row each at first."""
    nodes = (1, 2, 3, 4, 8, 12)
    target = PassCost(nodes, (1,), (tuple(8.0 * min(n, 4) + 0.5 * n for n in nodes),))
    for span in (1, 2, 4):
        found, wider = PairCost(target, constant(1.0)).scoring(1, slots=4, span=span, most=12)
        assert found == pytest.approx([8.5 * span + 0.5 * n for n in range(13)])
        assert wider == 0.0


def test_as_trees_grow_together_so_does_the_widest():
    """4 ms by the drafted node of the widest tree is told apart from what the nodes cost."""
    nodes = tuple(range(1, 17))
    even = [max(-(-n // 4) - 1, 1) for n in nodes]
    target = PassCost(
        nodes, (1,), (tuple(10.0 + 0.5 * n + 4.0 * w for n, w in zip(nodes, even, strict=True)),)
    )
    costs = PairCost(target, constant(1.0), PassCost((1,), (1,), ((4.0,),)))
    found, wider = costs.scoring(1, slots=4, span=4, most=12)
    assert found == pytest.approx([16.0 + 0.5 * n for n in range(13)])
    assert wider == pytest.approx(4.0)
    assert costs.scoring(1, slots=4, span=2, most=12)[1] == pytest.approx(2.0)
    assert costs.scoring(1, slots=1, span=1, most=12)[1] == 0.0, "one tree is measured as it grows"


def test_in_a_batch_that_is_not_full_nodes_cost_no_slots(monkeypatch):
    """Slots are dear and nodes are not: two requests in a batch for eight draft all the same."""
    nodes = tuple(range(1, 65))
    target_cost = PassCost(nodes, (1,), (tuple(50.0 * min(n, 8) + 0.1 * n for n in nodes),))
    target = tiny()
    with_costs(monkeypatch, target_cost, constant(0.5))
    monkeypatch.setattr(auto, "Depths", lambda most: Depths(0))
    engine = engine_for("dynamic-tree", AUTO, target, near(target), batch=8)
    for request in requests(2, max_new_tokens=40):
        engine.add(request)
    drafted = [step.tree.num_drafted for _ in range(10) for step in engine.step().steps]
    assert sum(drafted) > 2 * len(drafted)


def test_the_widest_tree_is_paid_for_by_all(monkeypatch):
    """Where width is dear, the same nodes are spread over the requests."""
    widest = {}
    for ms in (1e-6, 40.0):
        target = tiny()
        costs = PairCost(linear(50.0, 0.5), constant(0.5), constant(ms))
        monkeypatch.setattr(auto, "measure", lambda *runners, costs=costs, **how: costs)
        monkeypatch.setattr(auto, "Depths", lambda most: Depths(0))
        engine = engine_for("dynamic-tree", AUTO, target, near(target), batch=4)
        for request in requests(4, max_new_tokens=60):
            engine.add(request)
        trees = [step.tree for _ in range(15) for step in engine.step().steps]
        widest[ms] = max([tree.num_drafted for tree in trees])
        assert any(tree.num_drafted for tree in trees)
    assert widest[40.0] < 0.7 * widest[1e-6]


def test_depths_take_turns_and_the_best_is_kept():
    depths = Depths(6)
    seen = []
    for _ in range(2000):
        depths.drafted(10.0)
        seen.append(depths.now)
        depths.took({1: 9.0, 2: 8.0, 3: 9.5, 6: 11.0}[depths.now])
    assert set(seen[:64]) == {1, 2, 3, 6}
    assert seen[500:].count(2) > 0.8 * len(seen[500:])
    assert {1, 3, 6} <= set(seen[500:]), "the others are tried again"
    for _ in range(2000):  # the text changes
        depths.drafted(10.0)
        seen.append(depths.now)
        depths.took({1: 9.0, 2: 12.0, 3: 9.5, 6: 7.0}[depths.now])
    assert seen[-500:].count(6) > 0.8 * 500


@pytest.mark.parametrize("most", [0, 1])
def test_where_there_is_one_depth_nothing_is_tried(most):
    depths = Depths(most)
    depths.drafted(3.0)
    depths.took(1.0)
    assert depths.now == 0


def test_drafting_that_finds_nothing_worth_scoring_ends(monkeypatch):
    """A draft that is sure of nothing is asked a few times, then only for a probe now and then."""
    target = tiny()
    with_costs(monkeypatch, linear(50.0, 20.0), constant(4.0))
    engine = engine_for("dynamic-tree", AUTO, target, near(target))
    engine.add(requests(1, max_new_tokens=100)[0])
    passes = [step.tree.draft_passes for _ in range(60) for step in engine.step().steps]
    assert sum(passes[:10]) > 0
    assert sum(passes[30:]) <= 5
