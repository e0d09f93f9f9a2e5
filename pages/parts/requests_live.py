"""The load run under way: how far it is, and the view of its last steps, drawn by a fragment."""

from __future__ import annotations

import streamlit as st

from pages.parts.jobs import say_ended, say_problem, say_progress, stopping
from pages.parts.requests_view import requests_view
from pages.parts.settings import handle, settings
from workbench.jobs import LOAD
from workbench.loading.state import Loading
from workbench.view.requests_live import ended, live_payload, told

_KEY, _CLEARED = "requests-live", "requests/cleared"


def live_view(*, active: bool) -> bool:
    """Problems of the last press of Start, then the run under way; whether there is one.

    `active` is what the page's buttons were drawn for; the page is drawn anew once it changes.
    """
    say_problem("requests", "The load run was not started")
    serving = active and handle().snapshot().kind == LOAD
    st.fragment(_draw, run_every=settings.refresh_s if active else None)(active)
    return serving


def _draw(was_active: bool) -> None:
    busy = handle().active  # asked first: one that ends in between is drawn once more
    snapshot = handle().snapshot()
    loading: Loading = snapshot.loading
    serving = busy and snapshot.kind == LOAD
    with st.container():
        if serving:
            say_progress(told(loading, stopping=stopping("requests")))
        elif (end := ended(loading)) is not None:
            say_ended(end)
    if serving and loading.ticks:
        requests_view(live_payload(loading), key=_KEY, on_ask=lambda: None)
    if busy != was_active:
        if was_active and snapshot.kind == LOAD and not st.session_state.pop(_CLEARED, False):
            st.session_state[_CLEARED] = True  # the view goes first, or two would be seen
            return
        if was_active and snapshot.kind == LOAD and loading.run_id:
            st.query_params["run"] = loading.run_id
        st.rerun()
