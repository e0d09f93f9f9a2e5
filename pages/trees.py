"""Trees: draw a static tree, see at once what it would have brought on a stored run, run it."""

import streamlit as st

from pages.parts.entry import through_app
from pages.parts.run_picker import pick_run
from pages.parts.trees import children_choice, completion, editor, outcome
from workbench.view.editor import askable

through_app()
left, right = st.columns([7, 5], vertical_alignment="bottom")
with left:
    run_id = pick_run("run", where=askable)
if run_id is not None:
    with right:
        children = children_choice(run_id)
    completion(run_id, children)
    editor(run_id, children)
    outcome(run_id)
