"""Run: choose a method and a prompt, press Run, watch the tree of every step."""

import streamlit as st

from pages.parts.busy import busy_elsewhere, other_job
from pages.parts.controls import folded_form, run_form, start, stop
from pages.parts.live import live_panel
from pages.parts.run_spec import spec_panel, take_spec
from pages.parts.settings import handle
from pages.parts.speed_up import speed_up
from workbench.jobs import RUN
from workbench.view.live import current

active = current(handle()).active
take_spec()
with st.sidebar:
    fields = run_form()
    with st.container(horizontal=True):
        run_pressed = st.button(
            "Run", type="primary", icon=":material/play_arrow:", key="run",
            disabled=active or busy_elsewhere(RUN), width="stretch",
        )  # fmt: skip
        stop_pressed = st.button(
            "Stop", icon=":material/stop:", key="stop", disabled=not active, width="stretch"
        )
    other_job(RUN)
    fields |= folded_form(fields["method"])
    spec_panel(fields)

if run_pressed:
    start(handle(), fields)
    st.rerun()
if stop_pressed:
    stop(handle())
live_panel(active=active)
speed_up()
