"""Every figure of the workbench is defined here, once, in the words of docs/measuring.md.

Pure functions on plain numbers and on `RunSummary`, which is folded step by step by `add_step`
and `add_request`. Nobody else counts nodes or divides nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from engine.records import Fate, RequestRecord, StageTimes, StepRecord
from engine.repetition import WINDOW
from engine.repetition import repetition as repetition_share
from workbench.events import RunSummary

__all__ = [
    "STAGES",
    "Forecast",
    "Waterfall",
    "acceptance_by_depth",
    "acceptance_by_rank",
    "acceptance_rate",
    "acceptance_vector",
    "add_request",
    "add_step",
    "forecast",
    "latency_reduction",
    "live_speedup",
    "num_ngrams",
    "ratio",
    "repetition_share",
    "speedup",
    "stage_shares",
    "step_ns",
    "summarise",
    "summary_from_json",
    "tokens_per_second",
    "tokens_per_step",
    "waterfall",
]

STAGES = StageTimes._fields


def add_step(summary: RunSummary, record: StepRecord) -> None:
    """Fold one request-step into `summary`.

    Times are of the whole pass: a pass over B requests is counted once (by `batch_step`), so that
    `decode_ns` is wall time and not B times too much. Steps must come in order.
    """
    tree, verdict = record.tree, record.verdict
    summary.steps += 1
    summary.drafted += tree.num_drafted
    summary.accepted += verdict.num_accepted
    summary.emitted += len(record.emitted)
    summary.kept += record.num_kept
    if record.batch_step >= summary.passes:
        summary.passes = record.batch_step + 1
        summary.decode_ns += record.times.wall
        for stage, nanoseconds in zip(STAGES, record.times, strict=True):
            summary.stages_ns[stage] = summary.stages_ns.get(stage, 0) + nanoseconds
    summary.draft_passes += tree.draft_passes
    _add_counts(summary.histogram, [verdict.num_accepted])
    if tree.expected_ms == tree.expected_ms:  # not NaN
        summary.predicted_tokens += tree.expected_tokens
        summary.predicted_ns += tree.expected_ms * 1e6
        summary.met_tokens += len(record.emitted)
        summary.met_ns += record.times.wall
    if tree.num_drafted == 0:
        return
    nodes = tree.num_nodes
    fate_N = verdict.fate_N[:nodes]
    accepted_N = fate_N == Fate.ACCEPTED
    tested_N = accepted_N | (fate_N == Fate.REJECTED)
    depth_N, rank_N = tree.depth_M[:nodes], tree.rank_M[:nodes]
    _add_counts(summary.accepted_at_depth, depth_N[accepted_N])
    _add_counts(summary.tested_at_depth, depth_N[tested_N])
    _add_counts(summary.accepted_at_rank, rank_N[accepted_N])
    _add_counts(summary.tested_at_rank, rank_N[tested_N])
    summary.parents_reached += int(np.isin(verdict.path_A, tree.parents_M[1:nodes]).sum())


def add_request(summary: RunSummary, record: RequestRecord) -> None:
    """Fold one finished request into `summary`: what its steps do not know."""
    summary.requests += 1
    summary.prefill_ns += record.prefill_ns
    ngrams = num_ngrams(record.num_kept)
    if ngrams:
        repeated = summary.repetition * summary.ngrams + record.repetition * ngrams
        summary.ngrams += ngrams
        summary.repetition = repeated / summary.ngrams


def summary_from_json(stored: dict[str, Any]) -> RunSummary:
    """A summary from what `RunSummary.as_json` stored; empty where nothing was."""
    known = {field.name for field in fields(RunSummary)}
    return RunSummary(**{name: value for name, value in stored.items() if name in known})


def summarise(steps: Iterable[StepRecord], requests: Iterable[RequestRecord] = ()) -> RunSummary:
    """The summary of steps in order and of finished requests."""
    summary = RunSummary()
    for step in steps:
        add_step(summary, step)
    for request in requests:
        add_request(summary, request)
    return summary


def _add_counts(counts: list[int], values: np.ndarray | Sequence[int]) -> None:
    """Raise `counts[v]` by one for each v in `values`; the list grows as needed."""
    for value in values:
        counts.extend([0] * (int(value) + 1 - len(counts)))
        counts[int(value)] += 1


# --- ratios -------------------------------------------------------------------------------


def ratio(part: float, whole: float) -> float:
    """part / whole, 0 where there is nothing to divide by."""
    return part / whole if whole else 0.0


def tokens_per_step(emitted: int, steps: int) -> float:
    """tau = emitted / steps; includes the bonus or correction."""
    return ratio(emitted, steps)


def acceptance_rate(accepted: int, drafted: int) -> float:
    """accepted / drafted. For trees it falls as trees grow: show it beside tau."""
    return ratio(accepted, drafted)


def tokens_per_second(kept: int, decode_ns: int) -> float:
    """Kept tokens by the wall time from the end of prefill."""
    return ratio(kept, decode_ns) * 1e9


def speedup(baseline_ns: float, method_ns: float) -> float:
    """Baseline time / method time, over the same prompts and token counts."""
    return ratio(baseline_ns, method_ns)


def latency_reduction(baseline_ns: float, method_ns: float) -> float:
    """Per cent of the baseline's time saved; negative where the method is slower."""
    return 100.0 * (1.0 - method_ns / baseline_ns) if baseline_ns else 0.0


def live_speedup(summary: RunSummary, plain_step_ns: int | None) -> float | None:
    """tau * t_plain / t_step: an estimate while a run goes on. None where unknown."""
    if not plain_step_ns or not summary.passes or not summary.decode_ns:
        return None
    return summary.tokens_per_step * plain_step_ns / step_ns(summary)


class Forecast(NamedTuple):
    """Tokens per second of the predicted steps: as the drafter predicted, as measured."""

    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted / measured; 1 is right."""
        return ratio(self.predicted, self.measured)


def forecast(summary: RunSummary) -> Forecast | None:
    """What the drafter predicted, over all steps that it predicted. None where it did not.

    Each step is predicted before it is made, from what was known by then. Tokens are emitted ones.
    """
    if not summary.met_ns or not summary.predicted_ns:
        return None
    return Forecast(
        ratio(summary.predicted_tokens, summary.predicted_ns) * 1e9,
        ratio(summary.met_tokens, summary.met_ns) * 1e9,
    )


def step_ns(summary: RunSummary) -> float:
    """Mean wall time of a step (of a pass, where one serves a batch)."""
    return ratio(summary.decode_ns, summary.passes)


def stage_shares(summary: RunSummary) -> dict[str, float]:
    """Share of the wall time of all steps by stage; they add up to 1."""
    total = sum(summary.stages_ns.values())
    return {stage: ratio(summary.stages_ns.get(stage, 0), total) for stage in STAGES}


# --- acceptance ---------------------------------------------------------------------------


def acceptance_by_depth(summary: RunSummary) -> list[float]:
    """Of the nodes tested at depth 1, 2, ..., the share accepted (conditional)."""
    return _shares(summary.accepted_at_depth, summary.tested_at_depth)[1:]


def acceptance_by_rank(summary: RunSummary) -> list[float]:
    """Of the nodes tested at rank 0, 1, ..., the share accepted (conditional)."""
    return _shares(summary.accepted_at_rank, summary.tested_at_rank)


def acceptance_vector(summary: RunSummary) -> list[float]:
    """Accepted at rank b / parents reached (marginal); its sum is at most 1."""
    return [ratio(accepted, summary.parents_reached) for accepted in summary.accepted_at_rank]


def _shares(accepted: Sequence[int], tested: Sequence[int]) -> list[float]:
    padded = list(accepted) + [0] * (len(tested) - len(accepted))
    return [ratio(a, t) for a, t in zip(padded, tested, strict=True)]


def num_ngrams(length: int) -> int:
    """Number of 8-grams in an output of `length` tokens: its weight in a run's repetition."""
    return max(0, length - WINDOW + 1)


# --- waterfall ----------------------------------------------------------------------------


class Waterfall(NamedTuple):
    """Speedup from ideal to real; each drop is the named stages' cost."""

    ideal: float  # tau: a step as cheap as a plain one
    scored: float  # after the cost of scoring the tree
    drafted: float  # and of drafting it
    measured: float  # and of everything else: tau * t1 / t_step


def waterfall(summary: RunSummary, plain_step_ns: float) -> Waterfall:
    """tau -> tau*t1/t_score -> tau*t1/(t_score + t_draft) -> tau*t1/t_step, t1 a plain step."""
    tau = summary.tokens_per_step
    score = ratio(summary.stages_ns.get("score", 0), summary.passes)
    draft = ratio(summary.stages_ns.get("draft", 0), summary.passes)
    return Waterfall(
        ideal=tau,
        scored=ratio(tau * plain_step_ns, score),
        drafted=ratio(tau * plain_step_ns, score + draft),
        measured=ratio(tau * plain_step_ns, step_ns(summary)),
    )
