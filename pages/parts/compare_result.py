"""A comparison as people read it: the verdict, charts in tabs, all rows, losslessness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import UserError
from pages.parts.charts import show_charts, show_table
from workbench.comparing import result
from workbench.comparing.rows import rows
from workbench.report.content import Report
from workbench.view.compare_list import changed_at
from workbench.view.compare_result import as_csv, comparison_report, grouped, table_frame
from workbench.view.forms import escape_markdown

_TONES = {
    "pays": ":green[:material/trending_up:]",
    "costs": ":orange[:material/trending_down:]",
    "even": ":gray[:material/trending_flat:]",
    "open": ":gray[:material/help:]",
}
_REPORTS = Path(__file__).resolve().parents[1] / "reports.py"
_RATIO = {"format": "%.2f×"}
_PERCENT = {"format": "%.0f %%"}
COLUMNS: dict[str, Any] = {
    "method": st.column_config.TextColumn("Method", pinned=True),
    "workload": st.column_config.TextColumn("Workload"),
    "dtype": st.column_config.TextColumn("Dtype"),
    "cache": None,
    "execution": st.column_config.TextColumn("Execution"),
    "finding": st.column_config.TextColumn("Finding"),
    "speedup": st.column_config.NumberColumn("Speedup", **_RATIO),
    "speedup_low": st.column_config.NumberColumn("95 % from", **_RATIO),
    "speedup_high": st.column_config.NumberColumn("to", **_RATIO),
    "end_to_end_speedup": st.column_config.NumberColumn(
        "End to end", help="Speedup with prefill included.", **_RATIO
    ),
    "time_saved_percent": st.column_config.NumberColumn("Time saved", format="%+.0f %%"),
    "tokens_per_second": st.column_config.NumberColumn("Tokens/s", format="%.1f"),
    "tokens_per_step": st.column_config.NumberColumn("Tokens/step", format="%.2f"),
    "accepted_percent": st.column_config.NumberColumn(
        "Accepted", help="Falls as trees grow: read it beside tokens per step.", **_PERCENT
    ),
    "nodes_per_step": st.column_config.NumberColumn(
        "Nodes", help="Mean size of a tree, its root included.", format="%.1f"
    ),
    "step_ms": st.column_config.NumberColumn("Step", format="%.2f ms"),
    "prefill_ms": st.column_config.NumberColumn("Prefill", format="%.1f ms"),
    "identical": st.column_config.NumberColumn(
        "Identical", help="Outputs equal to plain decoding's, token for token."
    ),
    "prompts": st.column_config.NumberColumn("Prompts"),
    "repetition_percent": st.column_config.NumberColumn(
        "Repetition", help="Share of 8-grams seen before; loops flatter every drafter.", **_PERCENT
    ),
    "spread_percent": st.column_config.NumberColumn(
        "Spread", help="How far repeats of a prompt lie apart.", **_PERCENT
    ),
    "run": st.column_config.TextColumn("Run"),
}


def comparison_result(comparison_id: str) -> None:
    """Everything of one comparison."""
    try:
        with st.spinner("Reading the comparison …", show_time=False):
            report, table = _read(comparison_id, changed_at(comparison_id))
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    verdict(report.verdict, tone=report.tone)
    _rests_on(report)
    groups = grouped(report.charts)
    names = [*groups, "Figures", "Losslessness", "Protocol"]
    tabs = st.tabs(names, key="compare/tab", on_change="rerun")
    for name, tab in zip(names, tabs, strict=True):
        with tab:
            if not tab.open:  # drawn when it is looked at
                continue
            if name in groups:
                show_charts(groups[name], key=f"{comparison_id}/{name}")
            elif name == "Figures":
                figures_table(table, file=comparison_id)
            elif name == "Losslessness":
                _losslessness(report)
            else:
                _protocol(report)
    _take_away(comparison_id)


def verdict(sentence: str, *, tone: str) -> None:
    """The sentence with its interval, and an arrow that says which way it points."""
    st.markdown(f"#### {_TONES.get(tone, '')} {escape_markdown(sentence)}")


def _rests_on(report: Report) -> None:
    """What the verdict rests on, and what to beware of."""
    if report.facts:
        facts = "; ".join(report.facts)
        st.caption(escape_markdown(f"{facts[0].upper()}{facts[1:]}."))
    for warning in report.warnings:
        st.warning(escape_markdown(warning), icon=":material/warning:")


def figures_table(table: pd.DataFrame, *, file: str) -> None:
    """All rows, and a button that takes them away as CSV."""
    st.dataframe(
        table,
        hide_index=True,
        column_config=COLUMNS,
        placeholder="–",
        alt="Figures of every method",
    )
    st.download_button(
        "All figures as CSV", lambda: as_csv(table), file_name=f"{file}.csv", mime="text/csv",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


@st.cache_resource(show_spinner=False, max_entries=16)
def _read(comparison_id: str, changed: int) -> tuple[Report, pd.DataFrame]:
    """Report and rows; `changed` is part of the key, so that a file written anew is read anew."""
    found = result.load(comparison_id)
    return comparison_report(found), table_frame(rows(found))


def _losslessness(report: Report) -> None:
    st.markdown(escape_markdown(report.lossless))
    for table in report.lossless_tables:
        show_table(table)


def _protocol(report: Report) -> None:
    for note in report.notes:
        st.caption(escape_markdown(note))
    for heading, pairs in report.about:
        with st.expander(escape_markdown(heading), expanded=heading == "Protocol"):
            for name, value in pairs:
                left, right = st.columns([1, 3])
                left.caption(escape_markdown(name))
                right.markdown(escape_markdown(value))
    st.markdown("**Measure it again**")
    for command in report.commands:
        st.code(command, language=None, wrap_lines=True)


def _take_away(comparison_id: str) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "Report as one HTML file", lambda: _html(comparison_id),
            file_name=f"{comparison_id}.html", mime="text/html", icon=":material/description:",
            on_click="ignore", help="Opens anywhere, without a network.",
        )  # fmt: skip
        if st.button("Choose what the report holds", icon=":material/tune:", type="tertiary"):
            st.session_state["reports/comparison"] = comparison_id
            st.switch_page(st.Page(_REPORTS))


def _html(comparison_id: str) -> str:
    from workbench.report.render import to_html

    return to_html(comparison_report(result.load(comparison_id)))
