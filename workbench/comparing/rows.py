"""Rows of a comparison: each arm's figures, paired with plain decoding of the same setting."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from workbench import metrics
from workbench.comparing.arms import PLAIN
from workbench.comparing.pairing import Pairing, paired
from workbench.comparing.result import ArmRun, Comparison, Sample
from workbench.spec import LOSSY
from workbench.statistics import Finding, Interval, finding, spread


@dataclass(slots=True)
class PromptRow:
    """One prompt decoded by one arm: medians over the repeats."""

    request: int
    question_id: str
    category: str
    turn: int
    num_prompt: int
    tokens: int
    prefill_ms: float
    decode_ms: float
    tokens_per_second: float
    speedup: float
    latency_reduction: float
    tokens_per_step: float
    acceptance_rate: float
    matched: bool | None  # None: not comparable


@dataclass(slots=True)
class Row:
    """One arm on one workload. Ratios are against plain decoding of the same setting."""

    method: str  # the arm's label
    workload: str
    dtype: str
    cache: bool
    execution: str  # eager or compiled, as it came to
    asked_execution: str
    run_id: str
    setting: str
    requests: int
    tokens_per_second: float
    speedup: Interval
    end_to_end: Interval  # speedup with prefill included
    latency_reduction: float
    tokens_per_step: float
    acceptance_rate: float | None  # None: nothing was drafted
    repetition: float
    prefill_ms: float  # of a prompt, mean
    decode_ms: float  # of a prompt, mean
    spread: float  # of the repeats of a prompt, as a share
    matched_requests: int | None
    why: str  # why tokens cannot be compared
    lossy: bool  # the output's law is not the target's
    error: str
    stages_ns: dict[str, int]
    step_ms: float
    plain_step_ms: float
    nodes_per_step: float  # mean size of a tree, its root included
    #: tokens per second as predicted step by step / as measured; None: nothing was predicted
    predicted: float | None
    waterfall: tuple[float, ...]  # ideal, scored, drafted, measured; empty: stages not known
    prompts: list[PromptRow] = field(default_factory=list)

    @property
    def group(self) -> tuple[str, bool, str, str]:
        """Rows of one group share their baseline."""
        return self.dtype, self.cache, self.asked_execution, self.workload

    @property
    def finding(self) -> Finding:
        """What the interval says."""
        return finding(self.speedup)

    @property
    def drafts(self) -> bool:
        """Whether the arm speculates at all."""
        return self.acceptance_rate is not None

    def as_json(self) -> dict[str, Any]:
        """The row as it is printed; unknown figures are None."""
        values = asdict(self)
        for name, prefix in (("speedup", "speedup"), ("end_to_end", "end_to_end_speedup")):
            interval = getattr(self, name)
            del values[name]
            values[prefix] = interval.value
            values[f"{prefix}_low"] = _known(interval.low)
            values[f"{prefix}_high"] = _known(interval.high)
        values["stages"] = values.pop("stages_ns")
        values["finding"] = str(self.finding)
        values["waterfall"] = list(self.waterfall)
        return values


def rows(comparison: Comparison) -> list[Row]:
    """A row for every arm that decoded something, in the order of the arms."""
    plain = {arm.group: arm for arm in comparison.arms if arm.method == PLAIN}
    found = []
    for arm in comparison.arms:
        base = plain.get(arm.group)
        both = paired(arm, base) if base is not None else None
        if both is not None:
            found.append(_row(arm, both, is_plain=arm is base, seed=comparison.spec.seed))
    return found


def _row(arm: ArmRun, both: Pairing, *, is_plain: bool, seed: int) -> Row:
    samples, first, decode_ns_P = both.samples, both.first, both.decode_ns_P
    steps, drafted = sum(s.steps for s in samples), sum(s.drafted for s in samples)
    kept, decode_ns = sum(s.kept for s in first), decode_ns_P.sum()
    prompts = _prompt_rows(arm, both)
    same = Interval(1.0, 1.0, 1.0)
    return Row(
        method=arm.label,
        workload=arm.workload,
        dtype=arm.dtype,
        cache=arm.cache,
        execution=arm.mode,
        asked_execution=arm.execution,
        run_id=arm.run_id,
        setting=arm.setting,
        requests=len(first),
        tokens_per_second=metrics.tokens_per_second(kept, int(decode_ns)),
        speedup=same if is_plain else both.speedup(seed),
        end_to_end=same if is_plain else both.end_to_end(seed),
        latency_reduction=metrics.latency_reduction(both.base_decode_ns_P.sum(), decode_ns),
        tokens_per_step=metrics.tokens_per_step(sum(s.emitted for s in samples), steps),
        acceptance_rate=metrics.acceptance_rate(sum(s.accepted for s in samples), drafted)
        if drafted
        else None,
        repetition=_repetition(first),
        prefill_ms=float(np.mean([np.median(t.prefill) for t in both.mine])) / 1e6,
        decode_ms=float(decode_ns_P.mean()) / 1e6,
        spread=spread([t.decode for t in both.mine]),
        matched_requests=None if arm.why else sum(bool(one.matched) for one in prompts),
        why=arm.why,
        lossy=arm.verify in LOSSY and bool(arm.why),
        error=arm.error,
        stages_ns={stage: arm.stages_ns.get(stage, 0) for stage in metrics.STAGES},
        step_ms=metrics.ratio(sum(s.decode_ns for s in samples), steps) / 1e6,
        plain_step_ms=both.plain_step_ns / 1e6,
        nodes_per_step=1.0 + metrics.ratio(drafted, steps),
        predicted=_predicted(arm),
        waterfall=_waterfall(arm, both.plain_step_ns),
        prompts=prompts,
    )


def _prompt_rows(arm: ArmRun, both: Pairing) -> list[PromptRow]:
    differing = {difference.request for difference in arm.differences}
    times = zip(both.first, both.mine, both.decode_ns_P, both.base_decode_ns_P, strict=True)
    return [
        PromptRow(
            request=sample.request,
            question_id=sample.question_id,
            category=sample.category,
            turn=sample.turn,
            num_prompt=sample.num_prompt,
            tokens=sample.kept,
            prefill_ms=float(np.median(mine.prefill)) / 1e6,
            decode_ms=float(decode_ns) / 1e6,
            tokens_per_second=metrics.tokens_per_second(sample.kept, int(decode_ns)),
            speedup=metrics.speedup(base_ns, decode_ns),
            latency_reduction=metrics.latency_reduction(base_ns, decode_ns),
            tokens_per_step=metrics.tokens_per_step(sample.emitted, sample.steps),
            acceptance_rate=metrics.acceptance_rate(sample.accepted, sample.drafted),
            matched=None if arm.why else sample.request not in differing,
        )
        for sample, mine, decode_ns, base_ns in times
    ]


def _repetition(samples: list[Sample]) -> float:
    weights = [metrics.num_ngrams(sample.kept) for sample in samples]
    shares = [sample.repetition for sample in samples]
    return float(np.average(shares, weights=weights)) if sum(weights) else 0.0


def _predicted(arm: ArmRun) -> float | None:
    known = metrics.forecast(arm.run_summary)
    return known.ratio if known else None


def _waterfall(arm: ArmRun, plain_step_ns: float) -> tuple[float, ...]:
    if not arm.stages_ns.get("score"):
        return ()
    return tuple(metrics.waterfall(arm.run_summary, plain_step_ns))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
