"""A report on a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workbench import frames
from workbench.comparing import wording
from workbench.comparing.arms import PLAIN
from workbench.comparing.needs import COLUMNS, needs
from workbench.comparing.result import Comparison
from workbench.comparing.rows import Row, rows
from workbench.comparing.table import settings
from workbench.report import surroundings
from workbench.report.again import compare_command
from workbench.report.charts import comparison_charts, run_charts
from workbench.report.content import Chart, Column, Report, Table
from workbench.report.estimates import prediction_chart
from workbench.report.samples import sample_text, sample_trees
from workbench.statistics import Finding
from workbench.store.reader import open_run

TONES = {
    Finding.PAYS: "pays",
    Finding.COSTS: "costs",
    Finding.EVEN: "even",
    Finding.OPEN: "open",
}
_MOST_DIFFERENCES = 40
_MOST_DETAILED = 8
_FEW_PROMPTS = 6


def report_on_comparison(
    comparison: Comparison, runs: Path | None = None, *, steps: bool = True
) -> Report:
    """Everything a report says. `runs` is the folder that holds the arms' stored runs.

    Without `steps` none of them is opened, and the charts that need them are left out.
    """
    table = rows(comparison)
    best = wording.best(table)
    report = Report(
        title="Comparison of decoding methods",
        made=f"{comparison.comparison_id}, {when(comparison.started)}",
        verdict=wording.verdict(table),
        tone=TONES[best.finding] if best else "open",
        facts=_facts(best, table),
        warnings=_warnings(comparison),
        about=[
            ("Environment", surroundings.environment(comparison.environment)),
            ("Models", surroundings.models(comparison.environment)),
            ("Workload", surroundings.workloads(comparison)),
            ("Protocol", surroundings.protocol(comparison)),
        ],
        tables=[arms_table(heading, part) for heading, part in settings(table)],
        lossless=f"{wording.lossless_summary(table)}.".capitalize(),
        lossless_tables=_losslessness(comparison, table),
        prompts=[_prompts(heading, part) for heading, part in settings(table)],
        notes=comparison.notes,
        commands=[comparison.command or compare_command(comparison.spec)],
    )
    detail = _detail(table, best)
    report.charts = comparison_charts(table, detail)
    if steps:
        _add_runs(report, comparison, detail, best, runs)
    return report


def _add_runs(
    report: Report,
    comparison: Comparison,
    detail: Sequence[Row],
    best: Row | None,
    runs: Path | None,
) -> None:
    """Charts of the stored steps, for the setting looked at in detail, and samples of the best."""
    shown = _worth_a_line(detail)
    names = {row.run_id: row.method for row in detail if row.method in shown}
    by_arm = {
        method: frames.merge(
            arm.run_summary for arm in comparison.arms if names.get(arm.run_id) == method
        )
        for method in dict.fromkeys(names.values())
    }
    data = frames.load_frames(names, runs)
    arms = [row.method for row in rows(comparison)]
    report.charts += _predictions(comparison, detail, arms, runs)
    report.charts += run_charts(by_arm, data, arms=arms)
    if best is not None:
        with open_run(best.run_id, runs) as run:
            report.sample = sample_text(run, best.method)
            report.trees = sample_trees(run, best.method)


def _predictions(
    comparison: Comparison, detail: Sequence[Row], arms: Sequence[str], runs: Path | None
) -> list[Chart]:
    """What each arm's run said of its own speed, beside what the pairing found."""
    summaries = {arm.run_id: arm.run_summary for arm in comparison.arms}
    plain_steps: dict[str, int | None] = {}
    for row in detail:
        if row.drafts:
            with open_run(row.run_id, runs) as run:
                plain_steps[row.run_id] = run.info.plain_step_ns
    return prediction_chart(detail, summaries, plain_steps, arms=arms)


def _detail(table: Sequence[Row], best: Row | None) -> list[Row]:
    """The rows of the best arm's setting, on all workloads."""
    if best is None:
        return list(table)
    return [row for row in table if row.group[:3] == best.group[:3]]


def _worth_a_line(detail: Sequence[Row]) -> set[str]:
    """Plain decoding and the fastest methods: more lines than that cannot be told apart."""
    ours = sorted(filter(wording.is_method, detail), key=lambda row: -row.speedup.value)
    fastest = list(dict.fromkeys(row.method for row in ours))[: _MOST_DETAILED - 1]
    return {PLAIN, *fastest}


def _facts(best: Row | None, table: Sequence[Row]) -> list[str]:
    facts = [wording.reason(best)] if best else []
    if best and best.requests < _FEW_PROMPTS:
        facts.append(f"{wording.count(best.requests, 'prompt')}: take the interval as a rough one")
    facts += [f"with prefill included {wording.ratio_with_bounds(best.end_to_end)}"] if best else []
    return [fact for fact in [*facts, wording.lossless_summary(table)] if fact]


def _warnings(comparison: Comparison) -> list[str]:
    found = []
    if comparison.status != "finished":
        found.append("The comparison was stopped; the figures are of the part that was complete.")
    for arm in comparison.arms:
        bugs = sum(difference.verdict == "bug" for difference in arm.differences)
        if bugs:
            found.append(
                f"{arm.label}: {wording.count(bugs, 'difference')} from plain decoding that two "
                "orders of summation cannot explain."
            )
        if arm.error:
            found.append(f"{arm.label} failed: {arm.error}")
    return found


def arms_table(heading: str, part: Sequence[Row]) -> Table:
    """The figures of arms that are compared with each other."""
    names = ("tokens/s", "speedup", "95%", "end to end", "time saved", "tokens per step",
             "accepted", "lossless", "repetition", "spread")  # fmt: skip
    best = wording.best(part)
    return Table(
        heading=heading,
        columns=[
            Column("method"),
            Column("finding"),
            *(Column(name, number=True) for name in names),
        ],
        rows=[
            [
                row.method + (f" ({row.setting})" if row.setting else ""),
                wording.finding(row),
                wording.rate(row.tokens_per_second),
                wording.ratio(row.speedup.value),
                wording.bounds(row.speedup) if row.method != PLAIN else wording.DASH,
                wording.ratio(row.end_to_end.value),
                wording.latency(row),
                f"{row.tokens_per_step:.2f}",
                wording.percent(row.acceptance_rate),
                wording.lossless(row),
                wording.percent(row.repetition),
                wording.percent(row.spread),
            ]
            for row in part
        ],
        note="Acceptance falls as trees grow: read it beside tokens per step. Repetition is the "
        "share of 8-grams seen before: text in a loop flatters every drafter. Spread is how far "
        "repeats of a prompt lie apart.",
        strong=list(part).index(best) if best is not None else None,
    )


def _losslessness(comparison: Comparison, table: Sequence[Row]) -> list[Table]:
    compared = Table(
        heading="Outputs against plain decoding",
        columns=[
            Column("method"),
            Column("workload"),
            Column("identical", number=True),
            Column(""),
        ],
        rows=[
            [row.method, row.workload, wording.lossless(row), row.why]
            for row in table
            if row.method != PLAIN
        ],
    )
    demands = Table(
        heading="What each method needs",
        columns=[Column(name) for name in COLUMNS],
        rows=[list(row) for row in needs(arm.method for arm in comparison.arms)],
        note="Under match the output equals plain decoding's token for token; the other rules keep "
        "the target's distribution. Typical acceptance keeps neither.",
    )
    differences = [
        [
            arm.label,
            difference.question_id,
            str(difference.position),
            difference.expected_text,
            difference.got_text,
            f"{difference.top2_gap:.2g}",
            f"{difference.shortfall:.2g}",
            f"{difference.tolerance:.2g}",
            difference.verdict,
        ]
        for arm in comparison.arms
        for difference in arm.differences
    ]
    if not differences:
        return [compared, demands]
    names = ("method", "prompt", "position", "plain token", "its token", "top-2 gap", "shortfall",
             "tolerance", "verdict")  # fmt: skip
    left_out = len(differences) - _MOST_DIFFERENCES
    note = (
        "The first difference of each output. Gaps are in nats: between the target's first two "
        "choices, and from its first choice to the lower of the two tokens. Within the tolerance, "
        "which two orders of summation give at this dtype, the verdict is numerics."
    )
    if left_out > 0:
        note += f" {left_out} more are in the stored comparison."
    columns = [Column(name, number=name in names[5:8] or name == "position") for name in names]
    return [
        compared,
        demands,
        Table("First differences", columns, differences[:_MOST_DIFFERENCES], note),
    ]


def _prompts(heading: str, part: Sequence[Row]) -> Table:
    """Speedup of every arm on every prompt."""
    others = [row for row in part if row.method != PLAIN]
    plain = part[0]
    speed = {(row.method, prompt.request): prompt for row in others for prompt in row.prompts}
    lines = []
    for prompt in plain.prompts:
        found = [speed.get((row.method, prompt.request)) for row in others]
        lines.append(
            [
                prompt.question_id + (f", turn {prompt.turn + 1}" if prompt.turn else ""),
                str(prompt.num_prompt),
                wording.milliseconds(prompt.decode_ms),
                *(wording.ratio(one.speedup) if one else wording.DASH for one in found),
            ]
        )
    columns = [
        Column("prompt"),
        Column("tokens", number=True),
        Column("plain", number=True),
        *(Column(row.method, number=True) for row in others),
    ]
    return Table(heading, columns, lines)


def when(moment: str) -> str:
    """A moment as it is stored, as people read it."""
    return moment[:16].replace("T", " ") + " UTC"
