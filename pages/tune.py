"""Tune: search a method's options for a pair and a workload, and take the best along."""

import streamlit as st

from pages.parts.compare_progress import measuring_panel
from pages.parts.entry import through_app
from pages.parts.settings import handle
from pages.parts.tune_form import tune_form
from pages.parts.tune_study import studies_view
from workbench.jobs import TUNE

through_app()
active = handle().active
st.title("Tune", anchor=False)
with st.sidebar:
    tune_form(active=active)
measuring_panel(active=active, kinds=(TUNE,), page="tune")
studies_view(active=active)
