"""Choosing what a report is on and what it holds, and handing it over."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from pages.parts.run_picker import pick_runs
from workbench.report.bundle import FORMS, Asked, file_name, handed, picture, pictures
from workbench.report.content import SECTIONS
from workbench.report.images import why_not
from workbench.view.comparisons import comparison_labels
from workbench.view.forms import escape_markdown

_RUNS, _COMPARISON = "Runs", "Comparison"
_MOST_RUNS = 12


def choose() -> Asked | None:
    """What the report is to be on; None until something is chosen."""
    labels = comparison_labels()
    source = st.segmented_control(
        "Report on", [_RUNS, _COMPARISON], default=_COMPARISON if labels else _RUNS, required=True,
        key="reports/source",
        help="Runs that were not measured against each other get no speedup; a comparison does.",
    )  # fmt: skip
    if source == _RUNS:
        wanted = tuple(pick_runs("reports", most=_MOST_RUNS))
        if not wanted:
            st.caption("Choose one run, or several to set side by side.")
            return None
    else:
        if not labels:
            st.info(
                "No comparison is stored yet. Measure one on the Compare page, or with `draftree "
                "compare`.",
                icon=":material/info:",
            )
            return None
        wanted = (
            st.selectbox(
                "Comparison", list(labels), key="reports/comparison", format_func=labels.__getitem__
            ),
        )
    return _contents(wanted)


def _contents(wanted: tuple[str, ...]) -> Asked:
    title = st.text_input(
        "Title", key="reports/title", placeholder="As the report has it", max_chars=120
    )
    sections = st.pills(
        "Sections", list(SECTIONS), default=list(SECTIONS), selection_mode="multi",
        key="reports/sections", format_func=SECTIONS.__getitem__,
        help="The verdict, the figures and the command that does it again are always there.",
    )  # fmt: skip
    return Asked(wanted, title, tuple(name for name in SECTIONS if name in sections))


@st.cache_data(max_entries=4, show_spinner="Building the report …")
def html_of(asked: Asked) -> str:
    """The report as HTML; stored runs do not change, so neither does it."""
    return handed(asked, "html").content.decode()


def downloads(asked: Asked) -> None:
    """The report as files; each is made when it is asked for."""
    theme: Any = "dark" if st.context.theme.type == "dark" else "light"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        form = st.selectbox(
            "Export as", list(FORMS), key="reports/form", format_func=FORMS.__getitem__, width=230
        )
        name = file_name(asked, form)
        st.download_button(
            "Download", lambda: handed(asked, form, theme=theme).content, file_name=name,
            type="primary", icon=":material/download:", on_click="ignore", key="reports/download",
        )  # fmt: skip
        with st.popover("One picture", icon=":material/image:"):
            _one_picture(asked, theme)


def _one_picture(asked: Asked, theme: Any) -> None:
    named = _pictures(asked)
    if not named:
        st.caption("This report holds neither charts nor trees.")
        return
    at = st.selectbox(
        "Chart or tree", range(len(named)), key="reports/picture",
        format_func=lambda number: named[number][0] if number < len(named) else "",
    )  # fmt: skip
    is_tree = named[at][1]
    reason = why_not()
    with st.container(horizontal=True):
        for form in ("svg", "png"):
            st.download_button(
                form.upper(), partial(picture, asked, at, form, theme=theme),
                file_name=f"draftree.{form}", icon=":material/download:", on_click="ignore",
                key=f"reports/{form}", disabled=bool(reason) and not (is_tree and form == "svg"),
            )  # fmt: skip
    if reason:
        st.caption(escape_markdown(reason))


@st.cache_data(max_entries=8, show_spinner=False)
def _pictures(asked: Asked) -> list[tuple[str, bool]]:
    return pictures(asked)
