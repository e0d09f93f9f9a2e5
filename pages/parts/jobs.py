"""What the forms of all kinds of jobs share: two buttons, starting, stopping, what is said of it.

`page` is the beginning of a page's keys. What went wrong on the last press of its button is kept
under `PAGE/problem`, and whether the job was told to stop under `PAGE/stopping`.
"""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from engine.errors import UserError
from pages.parts.settings import handle
from workbench.jobs import Spec
from workbench.view.compare_words import Ended, Told
from workbench.view.forms import escape_markdown


def start_and_stop(
    page: str, *, start: str, icon: str, stop: str, kinds: Iterable[str], active: bool,
    help: str | None = None,
) -> tuple[bool, bool]:  # fmt: skip
    """The two buttons of a form; whether each was pressed.

    `kinds` are the jobs that the page shows: another page stops the others. `help` is of `stop`.
    """
    running = active and handle().snapshot().kind in kinds
    with st.container(horizontal=True):
        started = st.button(
            start, type="primary", icon=icon, key=f"{page}/start", disabled=active, width="stretch"
        )
        stopped = st.button(
            stop, icon=":material/stop:", key=f"{page}/stop", disabled=not running,
            width="stretch", help=help,
        )  # fmt: skip
    return started, stopped


def start_job(page: str, spec: Spec | None, problem: str | None = None) -> bool:
    """Start a job, or keep the sentence that says why not; whether it was started."""
    st.session_state[f"{page}/stopping"] = False
    if spec is not None:
        try:
            handle().start(spec)
        except UserError as error:
            problem = str(error)
    st.session_state[f"{page}/problem"] = problem
    return problem is None


def stop_job(page: str) -> None:
    st.session_state[f"{page}/stopping"] = True
    handle().stop()


def stopping(page: str) -> bool:
    """Whether the job under way was told to stop from here."""
    return bool(st.session_state.get(f"{page}/stopping", False))


def say_problem(page: str, title: str) -> None:
    """What went wrong on the last press of the button, if anything did."""
    with st.container():  # always there, so that what follows keeps its place
        if problem := st.session_state.get(f"{page}/problem"):
            say_ended(Ended("error", title, problem))


def say_progress(said: Told) -> None:
    """How far a job is."""
    with st.container(border=True):
        st.markdown(f"**{escape_markdown(said.title)}**")
        st.progress(min(1.0, said.fraction), text=escape_markdown(said.detail))
        st.caption(escape_markdown(said.left) or "&nbsp;")


def say_ended(end: Ended) -> None:
    """How a job ended."""
    show = {"error": st.error, "warning": st.warning, "info": st.info}[end.kind]
    icon = ":material/error:" if end.kind == "error" else ":material/info:"
    show(escape_markdown(end.text), title=end.title or None, icon=icon)
