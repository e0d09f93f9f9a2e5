"""The offer to compile, beside an eager run on a CPU."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from pages.parts.settings import handle
from workbench.store import open_run
from workbench.view.live import current
from workbench.view.speed_up import offer


def speed_up() -> None:
    """A notice with a button that compiles and runs again; nothing where it would not help."""
    live = current(handle())
    if live.active or live.mode != "eager" or st.session_state.get("unwanted") == live.run_id:
        return
    found = offer(live, device=_device(live.run_id))
    if found is None:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.caption(f":material/bolt: {found.sentence}", width="stretch")
        if st.button("Compile for speed", icon=":material/bolt:", key="compile"):
            st.session_state["problem"], st.session_state["stopping"] = None, False
            try:
                handle().start(found.spec)
            except UserError as error:
                st.session_state["problem"] = str(error)
            st.rerun()
        if st.button("Not now", type="tertiary", key="compile/no"):
            st.session_state["unwanted"] = live.run_id
            st.rerun()


@st.cache_data(max_entries=16, show_spinner=False)
def _device(run_id: str) -> str:
    """Where a stored run decoded; empty where that is not known."""
    try:
        with open_run(run_id) as run:
            return str(run.info.environment.get("device", ""))
    except UserError:
        return ""
