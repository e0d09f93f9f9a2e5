"""The run under way, or the last one, drawn by a fragment that only ticks while it is needed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts.settings import handle, presenter, settings
from pages.parts.view import asked, decoding_view
from workbench.store import run_file
from workbench.view.forms import escape_markdown
from workbench.view.live import current
from workbench.view.presenter import Cursor

_KEY = "live"
_PAGE = Path(__file__).resolve().parents[1] / "replay.py"
_REPLAY = "live/replay"  # what the view wants opened there
_NOT_STARTED = "The run was not started"


def live_panel(*, active: bool) -> None:
    """Problems of the last press of Run, then the decoding view.

    `active` is what the page's buttons were drawn for; the page is drawn anew once it changes.
    """
    with st.container():  # always there, so that what follows keeps its place
        if problem := st.session_state.get("problem"):
            _say(problem, title=_NOT_STARTED)
    tick = st.fragment(_draw, run_every=settings.refresh_s if active else None)
    tick(active)


def _draw(was_active: bool) -> None:
    if named := st.session_state.pop(_REPLAY, None):
        st.switch_page(st.Page(_PAGE), query_params=named)
    live = current(handle(), stopping=st.session_state.get("stopping", False))
    with st.container():
        if live.error:
            _say(live.error, title=_NOT_STARTED if live.wrong_input else "The run ended early")
        if live.note:
            st.caption(escape_markdown(live.note))
    cursor = st.session_state.setdefault("cursor", Cursor())
    stored = not live.active and run_file(live.run_id).is_file()
    told = presenter().payload(live, cursor) | {"stored": stored}
    decoding_view(told, key=_KEY, on_ask=_on_ask)
    if live.active != was_active:
        st.rerun()  # the buttons and the tick change with it


def _say(problem: str, *, title: str) -> None:
    st.error(escape_markdown(problem), title=title, icon=":material/error:")


def _on_ask() -> None:
    question = asked(_KEY)
    if "replay" in question:
        named = {"run": current(handle()).run_id, "step": str(int(question["replay"]) + 1)}
        st.session_state[_REPLAY] = named
    else:
        st.session_state["cursor"].ask(question)
