"""Charts of a report about estimates: a run's own waterfall, and how far estimates were off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from workbench import figures, frames, predictions
from workbench.comparing.rows import Row
from workbench.events import RunSummary
from workbench.figures.prediction import predicted_against_measured
from workbench.report.content import Chart


def waterfall_chart(
    summaries: Mapping[str, RunSummary], plain_step_ns: Mapping[str, int | None]
) -> list[Chart]:
    """From tokens per step to the estimated speedup, for runs without a paired baseline."""
    costs = predictions.estimated_waterfalls(summaries, plain_step_ns)
    if costs.empty:
        return []
    row = costs.iloc[int(costs["measured"].argmax())]
    return [
        Chart(
            "From ideal to estimated",
            f"{row['arm']}: were its steps as cheap as plain ones, {row['ideal']:.2f} times plain "
            f"speed. Scoring its trees leaves {row['scored']:.2f}, drafting them "
            f"{row['drafted']:.2f}, all the rest {row['measured']:.2f}. An estimate from one plain "
            "step, not a measured speedup.",
            lambda theme: figures.estimated_waterfall(costs, theme=theme),
        )
    ]


def prediction_chart(
    rows: Sequence[Row],
    summaries: Mapping[str, RunSummary],
    plain_step_ns: Mapping[str, int | None],
    *,
    arms: Sequence[str],
) -> list[Chart]:
    """Live estimates against paired speedups. `arms` is the order all charts keep."""
    found = predictions.predictions(rows, summaries, plain_step_ns)
    if found.empty:
        return []
    ordered = frames.ordered(found, arms)
    return [
        Chart(
            "Predicted against measured",
            _read(found),
            lambda theme: predicted_against_measured(ordered, theme=theme),
        )
    ]


def _read(found: pd.DataFrame) -> str:
    off = found["predicted"] / found["measured"] - 1
    worst = int(off.abs().argmax())
    share = float(off.iloc[worst])
    if abs(share) < 0.01:
        return "The estimates that runs show while they go on lie within 1% of what was measured."
    side = "above" if share > 0 else "below"
    return (
        f"The estimate a run shows while it goes on lies at most {abs(share):.0%} {side} the "
        f"measured speedup ({found['arm'].iloc[worst]})."
    )
