"""A report on runs that were not measured against each other: no speedup, at most an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from workbench import frames, metrics
from workbench.comparing import wording
from workbench.events import RunSummary
from workbench.report import surroundings
from workbench.report.again import run_command
from workbench.report.charts import run_charts, tokens_per_step_chart
from workbench.report.content import Column, Report, Table
from workbench.report.estimates import waterfall_chart
from workbench.report.load_part import add_load
from workbench.report.samples import sample_text, sample_trees
from workbench.store.reader import RunInfo, RunReader, open_run


def report_on_runs(wanted: Sequence[str], runs: Path | None = None) -> Report:
    """Everything a report says of stored runs, given by id, the beginning of one, or "last".

    Raises:
        UserError: a run that is not there, is still in progress, or cannot be read.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(open_run(name, runs)) for name in wanted]
        infos = list({reader.info.run_id: reader.info for reader in readers}.values())
        return _report(infos, readers, runs)


def _report(infos: list[RunInfo], readers: list[RunReader], runs: Path | None) -> Report:
    arms = _names(infos)
    summaries = {arms[info.run_id]: _summary(info) for info in infos}
    first = infos[0]
    report = Report(
        title="Report on a run" if len(infos) == 1 else f"Report on {len(infos)} runs",
        made=", ".join(
            f"{info.run_id} ({info.started[:16].replace('T', ' ')} UTC)" for info in infos
        ),
        verdict=_verdict(infos, arms[first.run_id], summaries[arms[first.run_id]]),
        tone="open",
        facts=_facts(first, summaries[arms[first.run_id]]) if len(infos) == 1 else [],
        warnings=[
            f"Run {info.run_id} {_ending(info)}" for info in infos if info.status != "finished"
        ],
        about=_about(infos, arms),
        tables=[_table(infos, arms, summaries)],
        commands=[run_command(info.spec) for info in infos],
    )
    plain_steps = {arms[info.run_id]: info.plain_step_ns for info in infos}
    report.charts = [
        *tokens_per_step_chart(summaries),
        *waterfall_chart(summaries, plain_steps),
        *run_charts(summaries, frames.load_frames(arms, runs)),
    ]
    by_id = {reader.info.run_id: reader for reader in readers}
    add_load(report, list(by_id.values()), arms)
    reader = by_id[first.run_id]
    report.sample = sample_text(reader, arms[first.run_id])
    report.trees = sample_trees(reader, arms[first.run_id])
    return report


def _names(infos: Sequence[RunInfo]) -> dict[str, str]:
    """A name for each run: its arm or method, with the id's last digits where two share one."""
    names = {}
    for info in infos:
        options = ",".join(f"{name}={value}" for name, value in info.spec.options.items())
        name = info.spec.arm or info.spec.method + (f":{options}" if options else "")
        names[info.run_id] = name
    taken = list(names.values())
    return {
        run_id: name if taken.count(name) == 1 else f"{name} ({run_id[-4:]})"
        for run_id, name in names.items()
    }


def _summary(info: RunInfo) -> RunSummary:
    known = RunSummary.__dataclass_fields__
    return RunSummary(**{name: value for name, value in info.summary.items() if name in known})


def _verdict(infos: Sequence[RunInfo], arm: str, summary: RunSummary) -> str:
    if len(infos) > 1:
        return (
            "These runs were not measured against each other; a speedup takes a paired comparison: "
            "draftree compare."
        )
    info = infos[0]
    if not summary.steps:
        return f"{arm} decoded nothing."
    speed = (
        f"{arm} made {summary.tokens_per_step:.2f} tokens per step and "
        f"{wording.rate(summary.tokens_per_second)} tokens per second"
    )
    estimate = metrics.live_speedup(summary, info.plain_step_ns)
    if estimate is None or not summary.drafted:
        return f"{speed}."
    return f"{speed}, about {wording.ratio(estimate)} plain decoding by an estimate."


def _facts(info: RunInfo, summary: RunSummary) -> list[str]:
    facts = [f"{wording.count(summary.kept, 'token')} in {summary.decode_ns / 1e9:.2f} s"]
    if summary.drafted:
        facts.append(f"{wording.percent(summary.acceptance_rate)} of drafted tokens accepted")
    if summary.kept:
        facts.append(f"{wording.percent(summary.repetition)} repetition")
    return [*facts, f"ran {info.mode}"] if info.mode else facts


def _ending(info: RunInfo) -> str:
    words = {
        "cancelled": "was cancelled; it holds what was decoded before.",
        "failed": "failed; it holds what was decoded before.",
        "interrupted": "was interrupted; it holds what was decoded before.",
    }
    ending = words.get(str(info.status), f"is {info.status}.")
    return f"{ending} {info.message}".strip()


def _about(infos: Sequence[RunInfo], arms: dict[str, str]) -> list[tuple[str, list]]:
    """Environment and models once where all runs share them, and how each run decoded."""
    about: list[tuple[str, list]] = []
    for heading, describe in (
        ("Environment", surroundings.environment),
        ("Models", surroundings.models),
    ):
        described = [describe(info.environment) for info in infos]
        if all(one == described[0] for one in described):
            about.append((heading, described[0]))
        else:
            about += [
                (f"{heading} of {arms[info.run_id]}", one)
                for info, one in zip(infos, described, strict=True)
            ]
    for info in infos:
        heading = "Protocol" if len(infos) == 1 else f"Protocol of {arms[info.run_id]}"
        about.append((heading, surroundings.run_protocol(info.spec)))
    return about


def _table(
    infos: Sequence[RunInfo], arms: dict[str, str], summaries: dict[str, RunSummary]
) -> Table:
    names = ("tokens/s", "tokens per step", "accepted", "steps", "tokens", "prefill", "repetition")
    lines = []
    for info in infos:
        summary = summaries[arms[info.run_id]]
        lines.append(
            [
                arms[info.run_id],
                info.run_id,
                wording.rate(summary.tokens_per_second),
                f"{summary.tokens_per_step:.2f}",
                wording.percent(summary.acceptance_rate if summary.drafted else None),
                str(summary.steps),
                str(summary.kept),
                wording.milliseconds(summary.prefill_ns / 1e6),
                wording.percent(summary.repetition),
            ]
        )
    columns = [Column("method"), Column("run"), *(Column(name, number=True) for name in names)]
    return Table("Runs" if len(infos) > 1 else "Figures", columns, lines)
