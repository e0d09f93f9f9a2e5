"""A comparison in the terminal: one table of arms per setting, and one of prompts on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from workbench.comparing import wording
from workbench.comparing.arms import PLAIN
from workbench.comparing.result import Comparison
from workbench.comparing.rows import Row
from workbench.statistics import Finding
from workbench.view.visible import safe_text

_FINDING_STYLES = {Finding.PAYS: "green", Finding.COSTS: "red"}


def tables(rows: Sequence[Row], *, per_prompt: bool) -> Iterator[RenderableType]:
    """For each setting and workload a table of arms and, if wanted, one of prompts."""
    for heading, part in settings(rows):
        yield _arms(heading, part)
        if per_prompt:
            yield _prompts(part)


def settings(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows that are compared with each other, under a heading that says what they share."""

    def shared(row: Row) -> tuple[str, str, bool, str]:
        return row.workload, row.dtype, row.cache, _execution(row, rows)

    for (workload, dtype, cache, execution), part in groupby(rows, shared):
        cached = "" if cache else ", without cache"
        yield f"{workload} in {dtype}{cached}, {execution}", list(part)


def closing(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    """What stands below the tables: the verdict, losslessness, notes, failures."""
    lines = [wording.verdict(rows), f"Losslessness: {wording.lossless_summary(rows)}."]
    for row in rows:
        if row.predicted is not None:
            lines.append(
                f"{row.method} predicted {row.predicted:.2f} times the tokens per second measured"
                f" on {row.workload}."
            )
    for arm in comparison.arms:
        bugs = sum(difference.verdict == "bug" for difference in arm.differences)
        if bugs:
            lines.append(
                f"{arm.label}: {wording.count(bugs, 'difference')} that summation cannot explain."
            )
        if arm.error:
            lines.append(f"{arm.label} failed: {arm.error}")
    return [safe_text(line) for line in [*lines, *comparison.notes]]


def _execution(row: Row, rows: Sequence[Row]) -> str:
    """Our engine's mode where the row was measured: Hugging Face always runs eager."""
    plain = (r for r in rows if r.method == PLAIN and r.group == row.group)
    return next((r.execution for r in plain), row.execution)


def _arms(heading: str, rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(safe_text(heading)))
    table.title_justify = "left"
    table.add_column("method", overflow="fold")
    columns = ("tokens/s", "speedup", "95%", "end to end", "time saved", "tokens/step", "accepted",
               "lossless", "repeated")  # fmt: skip
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row is wording.best(rows) else ""
        table.add_row(
            Text(safe_text(row.method), style=style),
            wording.rate(row.tokens_per_second),
            Text(wording.ratio(row.speedup.value), style=_FINDING_STYLES.get(row.finding, "")),
            wording.bounds(row.speedup) if row.method != PLAIN else wording.DASH,
            wording.ratio(row.end_to_end.value),
            wording.latency(row),
            f"{row.tokens_per_step:.2f}",
            wording.percent(row.acceptance_rate),
            Text(wording.lossless(row), style="red" if wording.differs(row) else ""),
            wording.percent(row.repetition),
        )
    return table


def _prompts(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("prompt", "method"):
        table.add_column(name, overflow="fold")
    for name in ("tokens/s", "speedup", "time saved", "tokens/step", "accepted", "same"):
        table.add_column(name, justify="right", no_wrap=True)
    requests = [prompt.request for prompt in rows[0].prompts]
    for request in requests:
        name = next(p.question_id for p in rows[0].prompts if p.request == request)
        for row in rows:
            prompt = next((p for p in row.prompts if p.request == request), None)
            if prompt is None:
                continue
            table.add_row(
                safe_text(name) if row is rows[0] else "",
                safe_text(row.method),
                wording.rate(prompt.tokens_per_second),
                wording.ratio(prompt.speedup),
                f"{prompt.latency_reduction:+.0f} %" if row.method != PLAIN else wording.DASH,
                f"{prompt.tokens_per_step:.2f}",
                wording.percent(prompt.acceptance_rate) if row.drafts else wording.DASH,
                {True: "yes", False: "no", None: wording.DASH}[prompt.matched],
            )
        table.add_section()
    return table
