"""Heads: train what drafts from the target itself, watch it learn, take it to the Run page."""

import streamlit as st

from pages.parts.compare_progress import measuring_panel
from pages.parts.entry import through_app
from pages.parts.heads_cards import heads_view
from pages.parts.heads_form import heads_form
from pages.parts.heads_searches import searches_view
from pages.parts.heads_training import trainings_view
from pages.parts.settings import handle
from workbench.jobs import TRAIN

through_app()
VIEWS = {
    "training": ("Training", trainings_view),
    "heads": ("Heads", heads_view),
    "searches": ("Searches", searches_view),
}
# by hand and not bound: `st.switch_page` refuses to leave a page whose address a widget holds
linked = st.session_state.setdefault("heads/part", st.query_params.get("part"))
active = handle().active
with st.sidebar:  # before the choice of a part: what is started is shown
    heads_form(active=active)
with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title("Heads", anchor=False, width="content")
    part = st.segmented_control(
        "Show", list(VIEWS), default=linked if linked in VIEWS else "training", required=True,
        key="part",
        format_func=lambda name: VIEWS[name][0] if name in VIEWS else name,
        label_visibility="collapsed",
    )  # fmt: skip
st.query_params["part"] = part
measuring_panel(active=active, kinds=(TRAIN,), page="heads")
VIEWS[part][1](active=active)
