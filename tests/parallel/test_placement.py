"""Which ranks hold what, and how many of them, as a matter of arithmetic."""

from __future__ import annotations

import pytest

from engine.errors import UserError
from engine.parallel.lanes import Lanes, clock_offset, shifted
from engine.parallel.placement import Layout, PassTimes, balanced, layout_of
from workbench.comparing.arms import parse_arm
from workbench.ranks import threads_per_rank


@pytest.mark.parametrize(
    ("num_ranks", "divided", "placement", "target", "draft"),
    [
        (1, "draft", "beside", (0,), (0,)),
        (4, "draft", "beside", (0,), (0, 1, 2, 3)),
        (4, "target", "beside", (0, 1, 2, 3), (0,)),
        (2, "both", "beside", (0, 1), (0, 1)),
        (2, "draft", "own", (0,), (1,)),
        (4, "draft", "own", (0,), (1, 2, 3)),
        (4, "target", "own", (0, 1, 2), (3,)),
    ],
)
def test_who_holds_what(num_ranks, divided, placement, target, draft):
    found = layout_of(num_ranks, divided=divided, placement=placement)
    assert found == Layout(target, draft)
    assert found.overlaps == (placement == "own")


def test_both_on_ranks_of_their_own_is_a_split():
    with pytest.raises(UserError, match="placement split"):
        layout_of(4, divided="both", placement="own")


@pytest.mark.parametrize(
    ("target_ms", "draft_ms", "num_ranks", "degrees", "wanted"),
    [
        (10.0, 10.0, 2, (1,), 1),
        (30.0, 10.0, 4, (1, 2, 3, 4), 3),  # 10 against 10
        (10.0, 30.0, 4, (1, 2, 3, 4), 1),
        (30.0, 10.0, 4, (1, 2, 4), 2),  # three heads' ranks are not to be had
        (10.0, 10.0, 8, tuple(range(1, 9)), 4),
        (1.0, 100.0, 4, (1, 2, 4), 1),
        (100.0, 1.0, 8, (1, 2, 4, 8), 4),
    ],
)
def test_split_balances_measured_times(target_ms, draft_ms, num_ranks, degrees, wanted):
    times = PassTimes(target_ms, draft_ms)
    assert balanced(times, num_ranks, degrees) == wanted
    found = layout_of(num_ranks, divided="both", placement="split", times=times, degrees=degrees)
    assert len(found.target) == wanted
    assert len(found.draft) == num_ranks - wanted
    assert found.overlaps


def test_no_other_cut_has_a_shorter_longest_side():
    for target in (1.0, 3.0, 17.0):
        for draft in (1.0, 5.0, 40.0):
            for ranks in range(2, 9):
                found = balanced(PassTimes(target, draft), ranks, range(1, ranks))
                longest = max(target / found, draft / (ranks - found))
                assert all(longest <= max(target / n, draft / (ranks - n)) for n in range(1, ranks))


def test_a_target_that_needs_all_ranks_cannot_be_split():
    with pytest.raises(UserError, match="one of 4 ranks is left"):
        balanced(PassTimes(1.0, 1.0), 4, [4])


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    assert threads_per_rank(None, 1) is None
    assert threads_per_rank(None, 4) == 4
    assert threads_per_rank(None, 32) == 1
    assert threads_per_rank(3, 4) == 3


def test_an_arm_says_its_ranks():
    arm = parse_arm("dynamic-tree:nodes=8,ranks=4,parallel=both,placement=split")
    assert (arm.ranks, arm.parallel, arm.placement) == ("4", "both", "split")
    assert arm.options == {"nodes": "8"}
    with pytest.raises(UserError, match="use one of 1 to 64"):
        parse_arm("dynamic-tree:ranks=0")
    with pytest.raises(UserError, match="use one of draft, target, both"):
        parse_arm("dynamic-tree:parallel=everything")


def test_a_clock_is_set_by_its_quickest_answer():
    offset, slack = clock_offset(lambda: __import__("time").perf_counter_ns() + 5_000_000_000)
    assert abs(offset - 5_000_000_000) <= slack + 1
    assert slack < 1_000_000_000


def test_notes_are_of_a_rank_and_a_step_and_are_taken_once():
    lanes = Lanes(2)
    lanes.step = 7
    with lanes.note("draft", "expand"):
        pass
    (row,) = lanes.take()
    assert (row.rank, row.lane, row.what, row.step) == (2, "draft", "expand", 7)
    assert lanes.take() == []
    (moved,) = shifted([row], -row.begin_ns)
    assert moved.begin_ns == 0
    assert moved.end_ns == row.end_ns - row.begin_ns
