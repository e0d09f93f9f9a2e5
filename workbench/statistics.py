"""Speedups with intervals: paired by prompt, medians over repeats, one way for every method.

Definitions are those of docs/measuring.md; times go in, ratios come out, nothing is timed here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

CONFIDENCE = 0.95
_RESAMPLES = 4000


class Interval(NamedTuple):
    """A ratio and the interval it lies in; `low` and `high` are NaN where none can be given."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))


class Finding(StrEnum):
    """What an interval says about a speedup."""

    PAYS = "pays"
    COSTS = "does not pay"
    EVEN = "no measurable gain"
    OPEN = "no interval"


def finding(speedup: Interval) -> Finding:
    """The interval decides: one that contains 1.0 is no measurable gain."""
    if not speedup.known:
        return Finding.OPEN
    if speedup.low > 1.0:
        return Finding.PAYS
    if speedup.high < 1.0:
        return Finding.COSTS
    return Finding.EVEN


def medians(times_PR: Sequence[Sequence[float]]) -> np.ndarray:
    """Median over the repeats of each prompt. Prompts may differ in their number of repeats."""
    return np.array([np.median(times_R) for times_R in times_PR], np.float64)


def spread(times_PR: Sequence[Sequence[float]]) -> float:
    """How far repeats lie apart: the mean over prompts of (max - min) / median."""
    if not times_PR:
        return 0.0
    return float(np.mean([np.ptp(times_R) / np.median(times_R) for times_R in times_PR]))


def paired_speedup(
    baseline_P: Sequence[float] | np.ndarray,
    method_P: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
) -> Interval:
    """Ratio of totals, baseline / method, with a 95% bootstrap interval over prompts.

    Element i of both is the time of prompt i: resampling takes both or neither. BCa intervals,
    percentile ones where BCa has no answer (few prompts, or ratios all alike). A single prompt has
    no interval.

    Raises:
        ValueError: lengths differ, none given, or a time is not positive.
    """
    baseline_P, method_P = np.asarray(baseline_P, float), np.asarray(method_P, float)
    if baseline_P.shape != method_P.shape or baseline_P.ndim != 1 or not len(baseline_P):
        raise ValueError(f"{len(baseline_P)} baseline times and {len(method_P)} do not pair up")
    if not (np.minimum(baseline_P, method_P) > 0).all():
        raise ValueError("a time that is not positive is no measurement")
    value = float(baseline_P.sum() / method_P.sum())
    if len(baseline_P) < 2:
        return Interval(value)
    ratios_P = baseline_P / method_P
    if np.ptp(ratios_P) <= 1e-12 * value:
        return Interval(value, value, value)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            found = bootstrap(
                (baseline_P, method_P),
                _ratio_of_totals,
                paired=True,
                vectorized=True,
                n_resamples=_RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return Interval(value, float(found.low), float(found.high))


def _ratio_of_totals(baseline_P: np.ndarray, method_P: np.ndarray, axis: int = -1) -> np.ndarray:
    return baseline_P.sum(axis=axis) / method_P.sum(axis=axis)
