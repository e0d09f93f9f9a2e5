"""The decoding view as a component: registered once, mounted by whichever page shows steps."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import streamlit as st

_ASSETS = files("workbench.view") / "tree_component"


def _read(*names: str) -> str:
    return "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)


_VIEW = st.components.v2.component(
    "draftree_view",
    html=_read("live.html"),
    css=_read("live.css"),
    js=_read("mount.js", "tree.js", "pieces.js", "live.js"),
)


def decoding_view(payload: dict[str, Any], *, key: str, on_ask: Callable[[], None]) -> None:
    """Draw what a `Presenter` made. `on_ask` runs when the view wants more: see `asked`."""
    _VIEW(data=payload | {"view": key}, key=key, on_ask_change=on_ask)


def asked(key: str) -> dict[str, Any]:
    """Inside `on_ask`: what the view asked for."""
    return dict(st.session_state[key].get("ask") or {})
