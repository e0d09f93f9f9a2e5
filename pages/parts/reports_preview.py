"""The report as it will be, in a frame that shares nothing with the app."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import streamlit as st

_ASSETS = files("workbench.view") / "report_component"


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


_PREVIEW = st.components.v2.component(
    "draftree_report",
    html=_read("preview.html"),
    css=_read("preview.css"),
    js=_read("preview.js"),
)


def preview(html: str, *, key: str) -> None:
    """Show a whole HTML file. It is sandboxed: scripts run, without the app's origin."""
    theme = "dark" if st.context.theme.type == "dark" else "light"
    digest = hashlib.blake2b(html.encode(), digest_size=8).hexdigest()
    _PREVIEW(data={"html": html, "digest": digest, "theme": theme}, key=key)
