"""The measurement under way: what is done, how long it will take; drawn by a fragment."""

from __future__ import annotations

import streamlit as st

from pages.parts.jobs import say_ended, say_problem, say_progress, stopping
from pages.parts.settings import handle, settings
from workbench.jobs import COMPARE, SWEEP, TRAIN, TUNE
from workbench.view.compare_words import ended, told

#: how the address bar names what a job of each kind made
_ADDRESSES = {COMPARE: "comparison", SWEEP: "sweep", TUNE: "study", TRAIN: "training"}


def measuring_panel(
    *, active: bool, kinds: tuple[str, ...] = (COMPARE, SWEEP), page: str = "compare"
) -> None:
    """Problems of the last press of the button, then the progress, then how the last one ended.

    `active` is what the page's buttons were drawn for; the page is drawn anew once it changes.
    `kinds` are the jobs that the page shows, `page` the beginning of its keys.
    """
    say_problem(page, "Nothing was started")
    st.fragment(_draw, run_every=settings.refresh_s if active else None)(active, kinds, page)


def _draw(was_active: bool, kinds: tuple[str, ...], page: str) -> None:
    busy = handle().active  # asked first: one that ends in between is drawn once more
    snapshot = handle().snapshot()
    measuring = snapshot.measuring
    with st.container():
        if busy and snapshot.kind in kinds:
            say_progress(told(measuring, stopping=stopping(page)))
        elif measuring.kind in kinds and (end := ended(measuring)) is not None:
            say_ended(end)
    if busy != was_active:
        if was_active and measuring.result and measuring.kind in kinds:
            st.query_params[_ADDRESSES[measuring.kind]] = measuring.result
        st.rerun()
