"""Run: choose a method and a prompt, press Run, watch the tree of every step."""

import streamlit as st

from pages.parts.controls import folded_form, run_form, start
from pages.parts.live import live_panel
from pages.parts.settings import handle
from workbench.view.live import current

active = current(handle()).active
with st.sidebar:
    fields = run_form()
    with st.container(horizontal=True):
        run = st.button(
            "Run", type="primary", icon=":material/play_arrow:", key="run", disabled=active,
            width="stretch",
        )  # fmt: skip
        stop = st.button(
            "Stop", icon=":material/stop:", key="stop", disabled=not active, width="stretch"
        )
    fields |= folded_form(fields["method"])

if run:
    start(handle(), fields)
    st.rerun()
if stop:
    handle().stop()
live_panel(active=active)
