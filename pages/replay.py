"""Replay: any stored run step by step, alone or beside another of the same prompt."""

import streamlit as st

from pages.parts.entry import through_app
from pages.parts.replay import pick_other, pick_request, replay_panel
from pages.parts.run_picker import pick_run
from workbench.view.replay import replayable

through_app()
left, middle, right = st.columns([5, 4, 3])
with left:
    run_id = pick_run("run", where=replayable)
if run_id is not None:
    with middle:
        other_id = pick_other(run_id)
    with right:
        chosen = pick_request(run_id)
    if chosen is not None:
        replay_panel(run_id, chosen, other_id)
