"""Stored runs side by side: what they can tell without having been measured against each other."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from pages.parts.charts import show_charts, show_table
from pages.parts.compare_form import ARMS
from pages.parts.run_picker import pick_runs
from workbench.report.content import Report
from workbench.view.compare_result import grouped
from workbench.view.compare_runs import arms_of, shared_comparison, why_no_speedup
from workbench.view.forms import escape_markdown
from workbench.view.runs_frame import stored_runs

_MOST = 8


def runs_view() -> None:
    """Choose runs from the table, see them together."""
    chosen = pick_runs("compare/runs", most=_MOST)
    if len(chosen) < 2:
        if stored_runs():
            st.info(
                "Choose two or more runs in the table to see them side by side.",
                icon=":material/checklist:",
            )
        return
    entries = [entry for entry in stored_runs() if entry.run_id in chosen]
    try:
        report = _read(tuple(chosen))
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    if comparison := shared_comparison(entries):
        st.info("These runs are arms of one comparison, which has their speedups.",
                icon=":material/compare_arrows:")  # fmt: skip
        st.button("Open the comparison", icon=":material/open_in_full:", on_click=_open,
                  args=(comparison,))  # fmt: skip
    else:
        _why(entries)
    groups = grouped(report.charts)
    names = ["Figures", *groups]
    for name, tab in zip(names, st.tabs(names, key="runs/tab", on_change="rerun"), strict=True):
        with tab:
            if not tab.open:
                continue
            if name == "Figures":
                if report.warnings:
                    st.caption(escape_markdown(" ".join(report.warnings)))
                for table in report.tables:
                    show_table(table)
            else:
                show_charts(groups[name], key=f"runs/{name}")


def _why(entries: list) -> None:
    st.markdown("#### :gray[:material/help:] No speedup is printed")
    reasons = why_no_speedup(entries)
    st.caption(escape_markdown(" ".join(reasons)))
    if arms := arms_of(entries):
        st.button(
            "Measure these methods against each other", icon=":material/speed:", on_click=_measure,
            args=(arms,), help="Fills in the form on the left with their methods and options.",
        )  # fmt: skip


@st.cache_resource(show_spinner=False, max_entries=8)
def _read(run_ids: tuple[str, ...]) -> Report:
    from workbench.report.from_runs import report_on_runs

    return report_on_runs(run_ids)


def _open(comparison: str) -> None:
    st.session_state["show"] = "comparisons"
    st.query_params["comparison"] = comparison


def _measure(arms: list[str]) -> None:
    st.session_state[ARMS[False]] = arms
    st.session_state["show"] = "comparisons"
