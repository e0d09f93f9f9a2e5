"""Data frames in, Plotly figures out. No Streamlit, no SQL, no arithmetic beyond drawing.

`theme` holds colours and the layout all figures share; every figure takes `theme="light"` or
`"dark"`. Texts from outside go through `theme.plain`: Plotly reads tags in labels.
"""

from workbench.figures.acceptance import (
    acceptance_by_depth,
    acceptance_by_rank,
    accepted_histogram,
    reliability,
    tokens_per_step,
)
from workbench.figures.cost import estimated_waterfall, score_time, stage_shares, stage_waterfall
from workbench.figures.prediction import predicted_against_measured
from workbench.figures.speed import frontier, speed_by_context, speed_over_time, speedups

__all__ = [
    "acceptance_by_depth",
    "acceptance_by_rank",
    "accepted_histogram",
    "estimated_waterfall",
    "frontier",
    "predicted_against_measured",
    "reliability",
    "score_time",
    "speed_by_context",
    "speed_over_time",
    "speedups",
    "stage_shares",
    "stage_waterfall",
    "tokens_per_step",
]
