"""Choosing what is replayed, and the panel that answers the view's questions."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from engine.paths import runs_folder
from pages.parts.replay_view import asked, replay_view
from workbench.store import run_file
from workbench.view.forms import escape_markdown
from workbench.view.replay import Replay, RequestChoice, request_choices
from workbench.view.replay_pair import comparable
from workbench.view.replay_payload import payload, start_of
from workbench.view.runs_frame import run_label, stored_runs

_KEY = "replay"
_QUESTION = "replay/question"


def pick_request(run_id: str) -> RequestChoice | None:
    """The request that is shown; asks where there are several. None where the run has no steps."""
    try:
        choices = _choices(run_id, _written(run_id))
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return None
    if len(choices) == 1:
        _name("request", None)
        _name("repeat", None)
        return choices[0]
    key = f"replay/request/{run_id}"
    if key not in st.session_state and (named := _named(choices)):
        st.session_state[key] = named
    chosen = st.selectbox("Request", choices, key=key, format_func=lambda choice: choice.label)
    _name("request", str(chosen.request + 1) if chosen != choices[0] else None)
    _name("repeat", str(chosen.repeat + 1) if chosen.repeat else None)
    return chosen


def pick_other(run_id: str) -> str | None:
    """A second run of the same prompt and models to set beside it, or None."""
    entries = {entry.run_id: entry for entry in stored_runs()}
    others = comparable(entries[run_id], entries.values()) if run_id in entries else []
    if not others:
        st.selectbox(
            "Side by side with", ["No other run of this prompt"], disabled=True,
            key=f"replay/no-other/{run_id}",
        )  # fmt: skip
        return None
    labels = {other.run_id: run_label(other) for other in others}
    key = f"replay/other/{run_id}"
    if key not in st.session_state and (named := st.query_params.get("with")) in labels:
        st.session_state[key] = named
    if st.session_state.get(key) not in labels:
        st.session_state.pop(key, None)
    chosen = st.selectbox(
        "Side by side with", list(labels), index=None, key=key, placeholder="Choose a second run",
        format_func=lambda other: labels.get(other, other),
    )  # fmt: skip
    _name("with", chosen)
    return chosen


def replay_panel(run_id: str, chosen: RequestChoice, other_id: str | None) -> None:
    """The replay itself. Its questions are answered by a fragment: the page is not run for them."""
    ids = [run_id] + ([other_id] if other_id else [])
    try:
        sides = [_opened(one, chosen.request, chosen.repeat, _written(one)) for one in ids]
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    key = sides[0].id
    if st.session_state.setdefault("replay/shown", key) != key:
        st.session_state["replay/shown"] = key
        _name("step", None)  # it was one of another request
    start = start_of(st.query_params.get("step"), sides[0])
    st.fragment(_draw)(sides, start)


def _draw(sides: list[Replay], start: int) -> None:
    about, question = st.session_state.get(_QUESTION, (None, {}))
    ids = [side.id for side in sides]
    try:
        told = payload(sides, question if about == ids else {}, start=start)
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    replay_view(told, key=_KEY, on_ask=lambda: _keep_question(ids))


def _keep_question(ids: list[str]) -> None:
    st.session_state[_QUESTION] = (ids, asked(_KEY))


@st.cache_data(show_spinner=False, max_entries=64)
def _choices(run_id: str, written: float) -> list[RequestChoice]:
    return request_choices(run_id)


@st.cache_resource(show_spinner=False, max_entries=8)
def _opened(run_id: str, request: int, repeat: int, written: float) -> Replay:
    return Replay(run_id, request, repeat)


def _written(run_id: str) -> float:
    """When the file was last written: what was read before counts no longer after that."""
    try:
        return run_file(run_id, runs_folder()).stat().st_mtime
    except OSError:
        return 0.0


def _named(choices: list[RequestChoice]) -> RequestChoice | None:
    """The request that the address names, counted from 1 there."""
    wanted = st.query_params.get("request", "1"), st.query_params.get("repeat", "1")
    for choice in choices:
        if (str(choice.request + 1), str(choice.repeat + 1)) == wanted:
            return choice
    return None


def _name(what: str, value: str | None) -> None:
    """Say it in the address bar, or take it out."""
    if value is None:
        if what in st.query_params:
            del st.query_params[what]
    elif st.query_params.get(what) != value:
        st.query_params[what] = value
