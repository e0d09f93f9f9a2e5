"""A line about a job of another kind that is under way: the worker does one at a time."""

from __future__ import annotations

import streamlit as st

from pages.parts.settings import handle, settings
from workbench.jobs import LOAD, RUN, TRAIN, TUNE, under_way
from workbench.view.compare_form import duration
from workbench.view.forms import escape_markdown


def busy_elsewhere(kind: str) -> bool:
    """Whether a job is under way that another page shows than the one that starts `kind`."""
    return handle().active and _page_of(handle().snapshot().kind) != _page_of(kind)


def _page_of(kind: str) -> str:
    return {RUN: "Run", LOAD: "Requests", TUNE: "Tune", TRAIN: "Heads"}.get(kind, "Compare")


def other_job(kind: str) -> None:
    """Say what is under way elsewhere; the page is drawn anew when it has begun or ended."""
    busy = busy_elsewhere(kind)
    st.fragment(_note, run_every=2 * settings.refresh_s if busy else None)(kind, busy)


def _note(kind: str, was_busy: bool) -> None:
    if busy_elsewhere(kind) != was_busy:
        st.rerun()
    with st.container():  # always there, so that what follows keeps its place
        if not was_busy:
            return
        snapshot = handle().snapshot()
        far = snapshot.loading if snapshot.kind == LOAD else snapshot.measuring
        spec = snapshot.spec if snapshot.kind == RUN else far.spec
        said = f"{under_way(spec)}." if spec is not None else "Another job is under way."
        where = f"the {_page_of(snapshot.kind)} page"
        if snapshot.kind != RUN and far.seconds_left is not None and far.fraction is not None:
            said = f"{said} {far.fraction:.0%} done, {duration(far.seconds_left)} left."
        st.caption(f":material/hourglass_top: {escape_markdown(said)} See {where}.")
