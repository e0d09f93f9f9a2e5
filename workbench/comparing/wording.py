"""Figures in words: digits, units and verdicts, one way in tables, reports and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.comparing.arms import BASELINES, DRAFT_ALONE, PLAIN
from workbench.comparing.rows import Row
from workbench.statistics import Finding, Interval

DASH = "–"


def ratio(value: float) -> str:
    """1.8234 as 1.82×."""
    return f"{value:.2f}×"


def bounds(interval: Interval) -> str:
    """[1.74, 1.90], or a dash where there is no interval."""
    return f"[{interval.low:.2f}, {interval.high:.2f}]" if interval.known else DASH


def ratio_with_bounds(interval: Interval) -> str:
    """1.82× [1.74, 1.90]."""
    return (
        f"{ratio(interval.value)} {bounds(interval)}" if interval.known else ratio(interval.value)
    )


def percent(share: float | None) -> str:
    """0.423 as 42 %; small shares keep a digit."""
    if share is None or math.isnan(share):
        return DASH
    digits = 1 if 0 < abs(share) < 0.0995 else 0
    return f"{100 * share:.{digits}f} %"


def rate(tokens_per_second: float) -> str:
    """Tokens per second: three figures or so."""
    return f"{tokens_per_second:.1f}" if tokens_per_second < 100 else f"{tokens_per_second:.0f}"


def milliseconds(value: float) -> str:
    """1.234 as 1.23 ms; whole ones from 100."""
    return (
        f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
    )


def latency(row: Row) -> str:
    """Per cent of plain decoding's time saved, with its sign."""
    return f"{row.latency_reduction:+.0f} %" if row.method != PLAIN else DASH


def lossless(row: Row) -> str:
    """8 of 8, a dash where tokens cannot be compared, or a plain word."""
    if row.lossy:
        return "lossy"
    return DASH if row.matched_requests is None else f"{row.matched_requests} of {row.requests}"


def differs(row: Row) -> bool:
    """Whether tokens were compared and some outputs were not the same."""
    return row.matched_requests is not None and row.matched_requests < row.requests


def count(number: int, one: str, many: str = "") -> str:
    """1 prompt, 3 prompts."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def finding(row: Row) -> str:
    """An arm's verdict in a few words."""
    if row.method == PLAIN:
        return "the baseline"
    if row.method == DRAFT_ALONE:
        return "a bound: another text"
    return {
        Finding.PAYS: "pays",
        Finding.COSTS: "does not pay",
        Finding.EVEN: "no measurable gain",
        Finding.OPEN: "one prompt gives no interval",
    }[row.finding]


def best(rows: Sequence[Row]) -> Row | None:
    """The fastest speculative arm, of all settings; None where none was measured."""
    ours = [row for row in rows if is_method(row)]
    return max(ours, key=lambda row: row.speedup.value, default=None)


def is_method(row: Row) -> bool:
    """Whether the row is a method under test: neither plain decoding nor a baseline."""
    name = row.method.partition(":")[0]
    return name != PLAIN and name not in BASELINES


def verdict(rows: Sequence[Row]) -> str:
    """The sentence a report begins with: the best method, its interval, and whether it pays."""
    row = best(rows)
    if row is None:
        return "Only baselines were measured; name a method to compare."
    speed = ratio_with_bounds(row.speedup)
    where = f" on {row.workload}" if len({one.workload for one in rows}) > 1 else ""
    others = sum(is_method(one) for one in rows) > 1
    name = f"{row.method}, the fastest of the methods," if others else row.method
    match row.finding:
        case Finding.PAYS:
            return f"It pays: {name} decodes {speed} as fast as plain decoding{where}."
        case Finding.COSTS:
            return f"It does not pay: {name} decodes only {speed} as fast as plain decoding{where}."
        case Finding.EVEN:
            return (
                f"No measurable gain: {name} decodes {speed} as fast as plain decoding{where}, and "
                "the interval contains 1."
            )
        case _:
            return (
                f"{name} decoded {speed} as fast as plain decoding{where}; one prompt gives no "
                "interval."
            )


def reason(row: Row) -> str:
    """Why an arm is as fast as it is, from its own figures."""
    if not row.drafts or not row.plain_step_ms:
        return ""
    parts = [
        f"{row.tokens_per_step:.2f} tokens per step",
        f"a step takes {row.step_ms / row.plain_step_ms:.2f} plain ones",
    ]
    total = sum(row.stages_ns.values())
    if total:
        parts.append(f"drafting is {percent(row.stages_ns['draft'] / total)} of it")
    return ", ".join(parts)


def lossless_summary(rows: Sequence[Row]) -> str:
    """One clause on all arms whose tokens can be compared."""
    lossy = ", ".join(row.method for row in rows if row.lossy)
    warning = f"; {lossy} changes the law of the output" if lossy else ""
    compared = [row for row in rows if row.matched_requests is not None and row.method != PLAIN]
    if not compared:
        return f"tokens were not compared{warning}"
    matched = sum(row.matched_requests or 0 for row in compared)
    total = sum(row.requests for row in compared)
    if matched == total:
        return f"all {total} outputs equal plain decoding's, token for token{warning}"
    return f"{matched} of {total} outputs equal plain decoding's{warning}"
