"""A stored load run on the Requests page: the view step by step, tables and charts below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from engine.errors import UserError
from engine.paths import runs_folder
from pages.parts.requests_charts import charts
from pages.parts.requests_tables import tables
from pages.parts.requests_view import asked, requests_view
from pages.parts.run_picker import pick_run
from workbench.store import run_file
from workbench.view.forms import escape_markdown
from workbench.view.requests_payload import StoredServing, payload, shows_requests, start_of
from workbench.view.runs_frame import stored_runs

KEY = "requests"
_REPLAY_PAGE = Path(__file__).resolve().parents[1] / "replay.py"
_QUESTION, _REPLAY = "requests/question", "requests/replay"


def stored_view() -> None:
    """Choose a stored load run and see how it was served; what to do where there is none."""
    if not any(shows_requests(entry) for entry in stored_runs()):
        _nothing_yet()
        return
    run_id = pick_run("run", where=shows_requests)
    if run_id is None:
        return
    try:
        stored = _opened(run_id, _written(run_id))
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    if st.session_state.setdefault("requests/shown", run_id) != run_id:
        st.session_state["requests/shown"] = run_id
        for name in ("step", "request"):  # of another run
            st.query_params.pop(name, None)
    start = start_of(st.query_params.get("step"), stored.served)
    st.fragment(_draw)(stored, start)
    if stored.served.history.has_requests:
        tables(stored.served, key=run_id)
        charts(stored.served, key=run_id)


def _draw(stored: StoredServing, start: int) -> None:
    if named := st.session_state.pop(_REPLAY, None):
        st.switch_page(st.Page(_REPLAY_PAGE), query_params=named)
    about, question = st.session_state.get(_QUESTION, (None, {}))
    mine = about == stored.served.id
    told = payload(stored, question if mine else {}, start=start)
    requests_view(told, key=KEY, on_ask=lambda: keep_question(stored.served.id))


def keep_question(run_id: str) -> None:
    """What the view asks for: more of the run, or to open a request in Replay."""
    question = asked(KEY)
    if isinstance(wanted := question.get("replay"), dict):
        st.session_state[_REPLAY] = _address(run_id, wanted)
    else:
        st.session_state[_QUESTION] = (run_id, question)


def _address(run_id: str, wanted: dict[str, Any]) -> dict[str, str]:
    """Where Replay shows a request and its step; both count from 1 there."""
    step = int(wanted.get("step") or 0)
    found = {"run": run_id, "request": str(int(wanted.get("request") or 0) + 1)}
    return found | ({"step": str(step + 1)} if step >= 0 else {})


@st.cache_resource(show_spinner="Reading the run", max_entries=4)
def _opened(run_id: str, written: float) -> StoredServing:
    """`written` is part of the key: what was read before counts no longer after that."""
    return StoredServing(run_id)


def _written(run_id: str) -> float:
    try:
        return run_file(run_id, runs_folder()).stat().st_mtime
    except OSError:
        return 0.0


def _nothing_yet() -> None:
    with st.container(border=True):
        st.markdown("**No load run is stored yet**")
        st.markdown(
            "Press **Start** on the left: requests come at the rate you choose and are served "
            "together. You see who waits, who shares the batch, how the nodes of each step are "
            "divided among the requests, and what it does to their latency. `draftree load` does "
            "the same from a terminal."
        )
