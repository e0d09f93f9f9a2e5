"""Searches over options of methods that draft from the target itself, as on the Tune page."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts.tune_study import studies_view

#: methods that need no second model and no lookup: the target's own layers, or heads on them
FROM_TARGET = ("layer-skip", "early-exit", "kangaroo", "medusa", "eagle")
_TUNE = Path(__file__).resolve().parents[1] / "tune.py"
_NOTHING = (
    "A search finds which layers a target can do without while it drafts, or how many guesses of a "
    "head are worth judging. Start one on the Tune page, or with `draftree tune layer-skip`."
)


def searches_view(*, active: bool) -> None:
    """The stored studies of these methods; the way to the Tune page, where new ones are started."""
    if st.button("Search on the Tune page", icon=":material/tune:", type="tertiary",
                 key="heads/tune"):  # fmt: skip
        st.switch_page(st.Page(_TUNE))
    studies_view(active=active, methods=FROM_TARGET, otherwise=_NOTHING)
