"""Draftree's pages. `draftree app` serves this file; it only routes."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).resolve().parent

st.set_page_config(
    page_title="Draftree",
    page_icon=":material/account_tree:",
    layout="wide",
    initial_sidebar_state=330,
)
st.logo(str(HERE / "pages" / "parts" / "assets" / "logo.svg"), size="large")
# The theme has no setting for the inset at the sides; trees need the width.
st.html("<style>.stMainBlockContainer { padding-inline: clamp(1rem, 2.2vw, 2.5rem); }</style>")
page = st.navigation(
    [
        st.Page(
            HERE / "pages" / "run.py", title="Run", icon=":material/play_circle:", default=True
        ),
        st.Page(HERE / "pages" / "replay.py", title="Replay", icon=":material/history:"),
        st.Page(HERE / "pages" / "requests.py", title="Requests", icon=":material/stacks:"),
        st.Page(HERE / "pages" / "compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page(HERE / "pages" / "tune.py", title="Tune", icon=":material/tune:"),
        st.Page(HERE / "pages" / "heads.py", title="Heads", icon=":material/model_training:"),
        st.Page(HERE / "pages" / "race.py", title="Race", icon=":material/sports_score:"),
        st.Page(HERE / "pages" / "trees.py", title="Trees", icon=":material/account_tree:"),
        st.Page(HERE / "pages" / "reports.py", title="Reports", icon=":material/description:"),
        st.Page(HERE / "pages" / "query.py", title="Query", icon=":material/database:"),
    ],
    position="top",
)
page.run()
