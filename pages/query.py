"""Query: SQL over stored runs, with the tables explained and examples to begin with."""

import streamlit as st

from pages.parts.entry import through_app
from pages.parts.query_editor import choose_runs, editor, examples
from pages.parts.query_result import result_panel
from pages.parts.query_tables import tables
from pages.parts.run_picker import no_runs
from workbench.view.runs_frame import stored_runs

through_app()
st.title("Query", anchor=False)
if not stored_runs():
    no_runs()
else:
    st.caption(
        "SQL over the steps, nodes and tokens of stored runs. Queries read and never change "
        "anything, and reach no other file."
    )
    examples()
    tables()
    active = editor(choose_runs())
    result_panel(active=active)
