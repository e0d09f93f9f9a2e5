"""Speedups and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from workbench.statistics import Finding, Interval, finding, medians, paired_speedup, spread


def test_the_speedup_is_the_ratio_of_totals_and_not_the_mean_of_ratios() -> None:
    assert paired_speedup([100.0, 1.0], [50.0, 1.0]).value == pytest.approx(101 / 51)


def test_prompts_are_resampled_in_pairs() -> None:
    lengths = np.array([1.0, 10.0, 100.0, 1000.0, 5.0, 50.0])
    noise = np.array([1.0, 1.01, 0.99, 1.0, 1.02, 0.98])
    found = paired_speedup(2 * lengths, lengths * noise)
    assert found.high - found.low < 0.1  # unpaired it would span several
    assert found.low < found.value < found.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(60):
        base = rng.lognormal(0, 0.3, 16)
        found = paired_speedup(base, base / 1.5 * rng.lognormal(0, 0.2, 16), seed=seed)
        truth = 1.5 / math.exp(0.02)
        covered += found.low <= truth <= found.high
    assert 48 <= covered <= 60


def test_the_interval_is_repeatable() -> None:
    base, other = [3.0, 4.0, 5.0], [2.0, 2.5, 4.0]
    assert paired_speedup(base, other) == paired_speedup(base, other)


def test_few_or_equal_prompts() -> None:
    one = paired_speedup([2.0], [1.0])
    assert one.value == 2.0
    assert not one.known
    assert finding(one) is Finding.OPEN
    two = paired_speedup([2.0, 2.2], [1.0, 1.0])
    assert 2.0 <= two.low < two.value < two.high <= 2.2
    assert paired_speedup([2.0, 4.0], [1.0, 2.0]) == Interval(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.01, 1.2, Finding.PAYS),
        (1.0, 1.2, Finding.EVEN),
        (0.9, 1.0, Finding.EVEN),
        (0.9, 1.1, Finding.EVEN),
        (0.8, 0.99, Finding.COSTS),
    ],
)
def test_the_interval_decides(low: float, high: float, expected: Finding) -> None:
    assert finding(Interval((low + high) / 2, low, high)) is expected


@pytest.mark.parametrize(
    ("base", "other"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, 0.0], [1.0, 1.0])]
)
def test_what_does_not_pair_up_is_refused(base: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pair up|not positive"):
        paired_speedup(base, other)


def test_medians_and_spread_over_repeats() -> None:
    times = [[1.0, 9.0, 2.0], [4.0, 4.0]]
    assert medians(times).tolist() == [2.0, 4.0]
    assert spread(times) == pytest.approx((8 / 2 + 0) / 2)
    assert spread([]) == 0.0
