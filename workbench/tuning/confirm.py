"""The best of many noisy trials flatters itself: it is measured again, beside the defaults.

A comparison like any other: plain decoding, the defaults and the best in turn, with more repeats.
Where the workload has prompts that no trial saw, the ratio is taken over those alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.comparing.arms import PLAIN
from workbench.comparing.result import ArmRun, Comparison, Sample
from workbench.events import Event, MeasuringStarted
from workbench.statistics import Interval, medians, paired_speedup
from workbench.tuning.spec import TuneSpec
from workbench.workloads import load_workload

#: fewer unseen prompts than that say little: then all count
_LEAST_NEW = 6


class Confirmation(NamedTuple):
    """How the best did when it was measured again."""

    options: dict[str, Any]
    key: int  # Optuna's number of the trial
    comparison: str
    ratio: Interval  # defaults' time / best's time, paired by prompt; 1 where they are the same
    speedup: Interval  # over plain decoding
    defaults_speedup: Interval
    tokens_per_step: float
    defaults_tokens_per_step: float
    prompts: int
    new: bool  # no trial saw these prompts
    repeats: int
    same: bool  # the baseline is the best
    baseline: dict[str, Any]  # the defaults, or the point of the space that is nearest to them
    acceptance_rate: float | None = None  # None where nothing was drafted, or it was not kept
    defaults_acceptance_rate: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the way back."""
        return {
            name: [None if math.isnan(v) else v for v in value]
            if isinstance(value, Interval)
            else value
            for name, value in self._asdict().items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Confirmation:
        """Raises KeyError or TypeError for what is none."""
        known = {
            name: values[name]
            for name in cls._fields
            if name in values or name not in cls._field_defaults
        }
        for name in ("ratio", "speedup", "defaults_speedup"):
            known[name] = Interval(*(math.nan if v is None else v for v in values[name]))
        return cls(**known)


def confirm(
    spec: TuneSpec,
    best: dict[str, Any],
    defaults: dict[str, Any],
    *,
    key: int,
    seen: int,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    runs: Path | None,
) -> Confirmation:
    """Measure the best beside the defaults. `seen`: prompts that the trials were measured on.

    Raises StoppedError when stopped, DecodeError where an arm broke off.
    """
    from engine.errors import DecodeError
    from workbench.compare import compare
    from workbench.comparing.decoders import StoppedError
    from workbench.report.again import compare_command

    labels = list(dict.fromkeys([spec.arm(defaults), spec.arm(best)]))
    asked = spec.comparison(labels, limit=_limit(spec))
    found = compare(
        asked,
        lambda event: None if isinstance(event, MeasuringStarted) else emit(event),
        should_stop,
        runs=runs,
        command=compare_command(asked),
    )
    if found.status == "cancelled":
        raise StoppedError
    for arm in found.arms:
        if arm.error:
            raise DecodeError(f"{arm.label} could not be measured again: {arm.error}")
    return judge_again(found, spec, best, defaults, key=key, seen=seen)


def judge_again(
    found: Comparison,
    spec: TuneSpec,
    best: dict[str, Any],
    defaults: dict[str, Any],
    *,
    key: int,
    seen: int,
) -> Confirmation:
    """What a finished comparison of the defaults and the best says."""
    arms = {arm.label: arm for arm in found.arms}
    plain, usual, ours = arms[PLAIN], arms[spec.arm(defaults)], arms[spec.arm(best)]
    prompts = sorted({sample.request for sample in plain.samples})
    unseen = [prompt for prompt in prompts if prompt >= seen]
    chosen = unseen if len(unseen) >= _LEAST_NEW else prompts
    times = {arm.label: _times(arm, chosen) for arm in (plain, usual, ours)}
    return Confirmation(
        options=best,
        key=key,
        comparison=found.comparison_id,
        ratio=paired_speedup(times[usual.label], times[ours.label]),
        speedup=paired_speedup(times[PLAIN], times[ours.label]),
        defaults_speedup=paired_speedup(times[PLAIN], times[usual.label]),
        tokens_per_step=_tokens_per_step(ours, chosen),
        defaults_tokens_per_step=_tokens_per_step(usual, chosen),
        prompts=len(chosen),
        new=chosen is unseen,
        repeats=spec.repeats,
        same=usual is ours,
        baseline=defaults,
        acceptance_rate=_acceptance_rate(ours, chosen),
        defaults_acceptance_rate=_acceptance_rate(usual, chosen),
    )


def _limit(spec: TuneSpec) -> int | None:
    """As many new prompts as the trials had, where the workload has them."""
    if spec.limit is None:
        return None
    return min(2 * spec.limit, len(load_workload(spec.workload)))


def _of(arm: ArmRun, prompts: Sequence[int]) -> list[list[Sample]]:
    return [[one for one in arm.samples if one.request == prompt] for prompt in prompts]


def _times(arm: ArmRun, prompts: Sequence[int]) -> Any:
    return medians([[one.decode_ns for one in samples] for samples in _of(arm, prompts)])


def _acceptance_rate(arm: ArmRun, prompts: Sequence[int]) -> float | None:
    samples = [one for group in _of(arm, prompts) for one in group]
    drafted = sum(one.drafted for one in samples)
    return sum(one.accepted for one in samples) / drafted if drafted else None


def _tokens_per_step(arm: ArmRun, prompts: Sequence[int]) -> float:
    samples = [one for group in _of(arm, prompts) for one in group]
    return sum(one.emitted for one in samples) / sum(one.steps for one in samples)
