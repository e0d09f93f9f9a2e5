"""A page opened by its address in a server that nobody has visited yet."""

from __future__ import annotations

import runpy
from pathlib import Path

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager


def through_app() -> None:
    """Go by way of app.py.

    Streamlit runs a file of a folder named `pages` by itself, without theme and navigation, until
    app.py has called `st.navigation` once. Pages with an address of their own call this first.
    """
    if PagesManager.uses_pages_directory:
        app = Path(__file__).resolve().parents[2] / "app.py"
        runpy.run_path(str(app), run_name="__main__")
        st.stop()
