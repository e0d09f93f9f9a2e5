"""A comparison's report laid out for the page: charts in groups, all rows as a table and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from engine.errors import UserError
from workbench.comparing import wording
from workbench.comparing.result import Comparison
from workbench.comparing.rows import Row
from workbench.report.content import Chart, Report
from workbench.report.from_comparison import report_on_comparison

#: which charts stand together, by their headings; what is named nowhere stands with the last
GROUPS = {
    "Speed": ("Speedup", "Tokens per step", "Frontier: speedup against tree size"),
    "Why": (
        "From ideal to measured",
        "Stages of a step",
        "Score time against nodes",
        "From ideal to estimated",
        "Predicted against measured",
    ),
    "Acceptance": (
        "Acceptance by depth",
        "Acceptance by rank",
        "Accepted per step",
        "Does the draft know when it is right?",
    ),
    "Along a request": ("Speed along a request", "Speed against context length"),
}


def comparison_report(comparison: Comparison, runs: Path | None = None) -> Report:
    """The report; where the arms' stored runs are gone, without the charts that need them."""
    try:
        return report_on_comparison(comparison, runs)
    except UserError as error:
        report = report_on_comparison(comparison, runs, steps=False)
        report.warnings.append(f"Charts of single steps are missing. {error}")
        return report


def grouped(charts: Sequence[Chart]) -> dict[str, list[Chart]]:
    """Charts by group in the order of GROUPS; groups without a chart are left out."""
    place = {heading: group for group, headings in GROUPS.items() for heading in headings}
    last = list(GROUPS)[-1]
    found: dict[str, list[Chart]] = {group: [] for group in GROUPS}
    for chart in charts:
        found[place.get(chart.heading, last)].append(chart)
    for group, inside in found.items():
        inside.sort(
            key=lambda chart: (
                GROUPS[group].index(chart.heading)
                if chart.heading in GROUPS[group]
                else len(GROUPS[group])
            )
        )
    return {group: inside for group, inside in found.items() if inside}


def table_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Every arm in every setting with its figures, one line each; shares in per cent."""
    return pd.DataFrame(
        [
            {
                "method": row.method,
                "workload": row.workload,
                "dtype": row.dtype,
                "cache": "on" if row.cache else "off",
                "execution": row.execution,
                "finding": wording.finding(row),
                "speedup": row.speedup.value,
                "speedup_low": row.speedup.low,
                "speedup_high": row.speedup.high,
                "end_to_end_speedup": row.end_to_end.value,
                "time_saved_percent": row.latency_reduction,
                "tokens_per_second": row.tokens_per_second,
                "tokens_per_step": row.tokens_per_step,
                "accepted_percent": None
                if row.acceptance_rate is None
                else 100 * row.acceptance_rate,
                "nodes_per_step": row.nodes_per_step,
                "step_ms": row.step_ms,
                "prefill_ms": row.prefill_ms,
                "identical": row.matched_requests,
                "prompts": row.requests,
                "repetition_percent": 100 * row.repetition,
                "spread_percent": 100 * row.spread,
                "run": row.run_id,
            }
            for row in rows
        ]
    )


def as_csv(frame: pd.DataFrame) -> bytes:
    """The table as UTF-8 CSV."""
    return frame.to_csv(index=False).encode()
