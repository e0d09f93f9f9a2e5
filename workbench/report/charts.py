"""The charts of a report, each with a sentence that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from workbench import figures, frames, metrics
from workbench.comparing import wording
from workbench.comparing.arms import DRAFT_ALONE
from workbench.comparing.rows import Row
from workbench.events import RunSummary
from workbench.frames import RunFrames
from workbench.report.content import Chart
from workbench.statistics import Finding

_OVERHEAD = ("verify", "commit", "record", "unaccounted")


def comparison_charts(rows: Sequence[Row], detail: Sequence[Row]) -> list[Chart]:
    """Charts of speedups: of all rows, and of the setting looked at in detail."""
    arms = [row.method for row in rows]
    # the draft alone writes another text, far faster: it would squeeze the scale of all others
    table = frames.rows_frame([row for row in rows if row.method != DRAFT_ALONE])
    charts = [
        Chart(
            "Speedup",
            _read_speedups(rows),
            lambda theme: figures.speedups(table, theme=theme),
            wide=True,
        )
    ]
    own = frames.ordered(frames.rows_frame(detail), arms)
    costs = frames.waterfalls(detail)
    if not costs.empty:
        charts += [
            Chart(
                "From ideal to measured",
                _read_waterfall(costs),
                lambda theme: figures.stage_waterfall(costs, theme=theme),
            ),
            Chart(
                "Frontier: speedup against tree size",
                _read_frontier(detail),
                lambda theme: figures.frontier(own, theme=theme),
            ),
            Chart(
                "Tokens per step",
                _read_tokens_per_step(detail),
                lambda theme: figures.tokens_per_step(own, theme=theme),
            ),
        ]
    return charts


def run_charts(
    summaries: Mapping[str, RunSummary], data: RunFrames, *, arms: Sequence[str] = ()
) -> list[Chart]:
    """Charts of what happened in the runs, by arm. `arms` is the order all charts keep."""
    arms = arms or list(summaries)
    drafting = {arm: summary for arm, summary in summaries.items() if summary.drafted}
    stepped = {arm: summary for arm, summary in summaries.items() if summary.stages_ns}
    stages = frames.stage_times(stepped)
    charts = [
        Chart(
            "Stages of a step",
            _read_stages(stepped),
            lambda theme: figures.stage_shares(stages, theme=theme),
        )
    ]
    if drafting and not data.nodes.empty:
        charts += _acceptance_charts(drafting, frames.ordered(data.nodes, arms), arms)
    if not data.steps.empty:
        charts += _step_charts(frames.ordered(data.steps, arms))
    return charts


def tokens_per_step_chart(summaries: Mapping[str, RunSummary]) -> list[Chart]:
    """Tokens per step of runs that drafted, where there are several to set side by side."""
    drafting = {arm: summary for arm, summary in summaries.items() if summary.drafted}
    if len(summaries) < 2 or not drafting:
        return []
    table = frames.summaries_frame(summaries)
    arm, most = max(drafting.items(), key=lambda item: item[1].tokens_per_step)
    return [
        Chart(
            "Tokens per step",
            f"Most with {arm}: {most.tokens_per_step:.2f}, the bonus or correction included; plain "
            "decoding makes 1.",
            lambda theme: figures.tokens_per_step(table, theme=theme),
        )
    ]


def _acceptance_charts(
    drafting: Mapping[str, RunSummary], nodes: pd.DataFrame, arms: Sequence[str]
) -> list[Chart]:
    seen = {arm: summary for arm, summary in drafting.items() if summary.histogram}
    histogram = frames.ordered(frames.accepted_histogram(seen), arms)
    by_depth = frames.ordered(frames.acceptance_by(seen, "depth"), arms)
    by_rank = frames.ordered(frames.acceptance_by(seen, "rank"), arms)
    bins = frames.reliability(nodes)
    return [
        Chart(
            "Accepted per step",
            _read_histogram(seen),
            lambda theme: figures.accepted_histogram(histogram, theme=theme),
        ),
        Chart(
            "Acceptance by depth",
            "Of the nodes tested at a depth, the share accepted; nodes behind a rejected one are "
            "not tested.",
            lambda theme: figures.acceptance_by_depth(by_depth, theme=theme),
        ),
        Chart(
            "Acceptance by rank",
            _read_ranks(by_rank),
            lambda theme: figures.acceptance_by_rank(by_rank, theme=theme),
        ),
        Chart(
            "Does the draft know when it is right?",
            _read_reliability(bins),
            lambda theme: figures.reliability(bins, theme=theme),
        ),
    ]


def _step_charts(steps: pd.DataFrame) -> list[Chart]:
    times = frames.score_time(steps)
    over_time, by_context = frames.speed_over_time(steps), frames.speed_by_context(steps)
    sizes = Chart(
        "Score time against nodes",
        _read_score_time(times),
        lambda theme: figures.score_time(times, theme=theme),
    )
    return [
        *([sizes] if times["nodes"].nunique() > 1 else []),
        Chart(
            "Speed along a request",
            "Kept tokens by wall time, from the end of prefill to the last token, requests laid "
            "over each other.",
            lambda theme: figures.speed_over_time(over_time, theme=theme),
        ),
        Chart(
            "Speed against context length",
            "Kept tokens by wall time where the context, prompt included, has a given length.",
            lambda theme: figures.speed_by_context(by_context, theme=theme),
        ),
    ]


# --- readings -----------------------------------------------------------------------------------


def _read_speedups(rows: Sequence[Row]) -> str:
    ours = [row for row in rows if wording.is_method(row)]
    if not ours:
        return "Only baselines were measured."
    counts = {found: sum(row.finding is found for row in ours) for found in Finding}
    said = [
        f"{number} {'pays' if number == 1 else 'pay'}"
        if found is Finding.PAYS
        else f"{number} {'does not' if number == 1 else 'do not'}"
        if found is Finding.COSTS
        else f"{number} with no measurable gain"
        if found is Finding.EVEN
        else f"{number} without an interval"
        for found, number in counts.items()
        if number
    ]
    return (
        f"Of {wording.count(len(ours), 'method')} measured, {', '.join(said)}. An interval that "
        "contains 1 is no measurable gain."
    )


def _read_waterfall(costs: pd.DataFrame) -> str:
    row = costs.iloc[int(costs["measured"].argmax())]
    return (
        f"{row['arm']}: were its steps as cheap as plain ones, {row['ideal']:.2f}×. Scoring its "
        f"trees leaves {row['scored']:.2f}×, drafting them {row['drafted']:.2f}×, all the rest "
        f"{row['measured']:.2f}×."
    )


def _read_frontier(detail: Sequence[Row]) -> str:
    row = wording.best(detail)
    if row is None:
        return ""
    return (
        f"The fastest has {row.nodes_per_step:.1f} nodes in a mean tree, its root included; the "
        "band joins the best at each size."
    )


def _read_tokens_per_step(detail: Sequence[Row]) -> str:
    ours = [row for row in detail if wording.is_method(row)]
    row = max(ours, key=lambda one: one.tokens_per_step, default=None)
    if row is None:
        return ""
    looped = (
        f" {wording.percent(row.repetition)} of its output repeats itself."
        if row.repetition
        else ""
    )
    return (
        f"Most with {row.method}: {row.tokens_per_step:.2f}, the bonus or correction included; "
        f"plain decoding makes 1.{looped}"
    )


def _read_stages(summaries: Mapping[str, RunSummary]) -> str:
    said = []
    for arm, summary in summaries.items():
        if summary.drafted and summary.histogram:
            shares = metrics.stage_shares(summary)
            said.append((sum(shares[stage] for stage in _OVERHEAD), arm))
    if not said:
        return "Where the time of a step goes."
    share, arm = max(said)
    return (
        "Verify, commit, record and unaccounted together take at most "
        f"{wording.percent(share)} of a step ({arm})."
    )


def _read_histogram(summaries: Mapping[str, RunSummary]) -> str:
    said = [
        f"{arm} accepts nothing in "
        f"{wording.percent(metrics.ratio(summary.histogram[0], summary.steps))}"
        for arm, summary in summaries.items()
    ]
    return f"Of all steps, {'; '.join(said[:3])}."


def _read_ranks(by_rank: pd.DataFrame) -> str:
    arm = by_rank["arm"].iloc[0] if not by_rank.empty else ""
    own = by_rank[by_rank["arm"] == arm].set_index("rank")["share"]
    if len(own) < 2:
        return "Of the nodes tested at a rank among their siblings, the share accepted."
    return (
        f"{arm}: the draft's first choice is accepted in {wording.percent(own.iloc[0])} of its "
        f"tests, the second in {wording.percent(own.iloc[1])}."
    )


def _read_reliability(bins: pd.DataFrame) -> str:
    if bins.empty:
        return ""
    gap = (bins["probability"] - bins["share"]) * bins["count"]
    by_arm = gap.groupby(bins["arm"], observed=True).sum() / (
        bins.groupby("arm", observed=True)["count"].sum()
    )
    at = int(by_arm.abs().argmax())
    arm, points = by_arm.index[at], 100 * float(by_arm.iloc[at])
    if abs(points) < 1:
        return "On average the draft's probabilities are right within a point."
    side = "above" if points > 0 else "below"
    return (
        f"Marks below the line: the draft is too sure. On average its probabilities lie "
        f"{abs(points):.0f} points {side} what is accepted ({arm})."
    )


def _read_score_time(times: pd.DataFrame) -> str:
    one = times[times["nodes"] == 1]
    trees = times[times["nodes"] > 1]
    if one.empty or trees.empty:
        return "Median time of a target pass by the number of nodes it scores, with quartiles."
    usual = trees.iloc[int(trees["steps"].argmax())]
    ratio = usual["ms"] / one["ms"].median()
    return (
        f"Scoring {usual['nodes']:.0f} nodes takes {ratio:.2f} times as long as scoring one. "
        "Medians with quartiles."
    )
