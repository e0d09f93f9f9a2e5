"""Requests: many at once; who waits, who shares a step, what it costs each of them."""

import streamlit as st

from pages.parts.entry import through_app
from pages.parts.requests import stored_view
from pages.parts.requests_form import load_form
from pages.parts.requests_live import live_view
from pages.parts.settings import handle

through_app()
active = handle().active
with st.sidebar:
    load_form(active=active)
if not live_view(active=active):
    stored_view()
