"""Compare: methods against plain decoding, sweeps over options, stored runs side by side."""

import streamlit as st

from pages.parts.compare_form import compare_form
from pages.parts.compare_progress import measuring_panel
from pages.parts.compare_runs import runs_view
from pages.parts.compare_stored import comparisons_view
from pages.parts.compare_sweeps import sweeps_view
from pages.parts.entry import through_app
from pages.parts.settings import handle

through_app()
VIEWS = {"comparisons": "Comparisons", "sweeps": "Sweeps", "runs": "Stored runs"}
linked = "sweeps" if {"sweep", "comparison"} & set(st.query_params) == {"sweep"} else "comparisons"

active = handle().active
with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title("Compare", anchor=False, width="content")
    view = st.segmented_control(
        "Show", list(VIEWS), default=linked, required=True, key="show",
        bind="query-params", format_func=lambda name: VIEWS.get(name, name),
        label_visibility="collapsed",
    )  # fmt: skip
with st.sidebar:
    compare_form(sweep=view == "sweeps", active=active)
measuring_panel(active=active)
if view == "sweeps":
    sweeps_view()
elif view == "runs":
    runs_view()
else:
    comparisons_view()
