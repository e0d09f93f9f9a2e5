"""Pass times on small frames: what is measured, what lies between, what lies beyond."""

from __future__ import annotations

import pandas as pd
import pytest

from engine.shapes import from_expansion, from_paths
from workbench.whatif import trees
from workbench.whatif.measure import fit
from workbench.whatif.times import (
    EXTRAPOLATED,
    INTERPOLATED,
    MEASURED,
    PassTimes,
    passes_and_rows,
)

MS = 1_000_000


def steps(
    nodes: int, passes: int, rows: int, *, score: float, draft: float, run: str = "a",
    plain: bool = False, count: int = 5,
) -> pd.DataFrame:  # fmt: skip
    rest = 0.5
    row = {
        "num_drafted": nodes, "draft_passes": passes, "rows": rows, "run": run, "plain": plain,
        "score_ns": score * MS, "draft_ns": draft * MS, "wall_ns": (score + draft + rest) * MS,
        "build_ns": 0, "verify_ns": rest * MS, "commit_ns": 0, "record_ns": 0, "unaccounted_ns": 0,
    }  # fmt: skip
    return pd.DataFrame([row] * count)


@pytest.fixture
def times() -> PassTimes:
    frame = pd.concat(
        [
            steps(0, 0, 0, score=4.0, draft=0.0, run="p", plain=True),
            steps(4, 4, 4, score=6.0, draft=4.0),  # a pass 0.8, a row 0.2
            steps(8, 2, 7, score=8.0, draft=3.0),
            steps(30, 1, 1, score=90.0, draft=50.0, count=2),  # too few to count
        ],
        ignore_index=True,
    )
    return fit(frame, [5 * MS])


def test_passes_and_rows_of_shapes():
    assert passes_and_rows(from_expansion("1,1,1,1")) == (4, 4)
    assert passes_and_rows(from_expansion("2,2")) == (2, 3)
    assert passes_and_rows(from_paths("0;1;2")) == (1, 1)


def test_what_was_measured_is_taken_as_it_is(times: PassTimes):
    step = times.step(from_expansion("1,1,1,1"))
    assert (step.score.ms, step.draft.ms) == (6.0, 4.0)
    assert step.score.how == step.draft.how == MEASURED
    assert step.ms == pytest.approx(10.5)
    assert times.plain == pytest.approx(4.5)  # the plain run's whole step, not the passes before
    assert times.plain_from == "p"


def test_between_measured_sizes_it_is_interpolated_and_beyond_extrapolated(times: PassTimes):
    between, beyond = times.score_ms(7), times.score_ms(33)
    assert between == (pytest.approx(7.0), INTERPOLATED)
    assert beyond.how == EXTRAPOLATED
    assert 15 < beyond.ms < 25
    drafted = times.draft_ms(3, 5)
    assert drafted == (pytest.approx(3 * 0.8 + 5 * 0.2), INTERPOLATED)
    assert times.draft_ms(6, 6).how == EXTRAPOLATED


def test_its_own_run_sets_the_scale(times: PassTimes):
    frame = pd.concat(
        [
            steps(0, 0, 0, score=4.0, draft=0.0, run="p", plain=True),
            steps(4, 4, 4, score=6.0, draft=4.0, run="quick", count=9),
            steps(4, 4, 4, score=12.0, draft=8.0, run="mine", count=4),
        ],
        ignore_index=True,
    )
    found = fit(frame, [5 * MS], own="mine")
    assert found.step(from_expansion("1,1,1,1")).ms == pytest.approx(20.5)
    assert found.plain == pytest.approx(4.5 * found.scale)


def test_without_drafting_steps_nothing_is_told():
    assert not fit(steps(0, 0, 0, score=4.0, draft=0.0, plain=True), [5 * MS]).known
    assert not fit(pd.DataFrame(), []).known


def test_the_fastest_tree_weighs_tokens_against_time(times: PassTimes):
    likely, unlikely = (0.8, 0.1), (0.02, 0.01)
    best = trees.fastest(likely, times)
    assert best is not None
    assert max(best.depths()) > 1
    assert trees.fastest(unlikely, times) is None, "not drafting is faster"
    assert trees.optimal_for(likely, 5, times).num_nodes == 6
