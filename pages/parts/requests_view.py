"""The requests view as a component; it shares styles, pieces and the player with the replay."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import streamlit as st

_VIEW = files("workbench.view")


def _read(*names: str) -> str:
    return "\n".join(_VIEW.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names)


_REQUESTS = st.components.v2.component(
    "draftree_requests",
    html=_read("requests_component/requests.html"),
    css=_read(
        "tree_component/live.css", "replay_component/replay.css", "requests_component/requests.css"
    ),
    js=_read(
        "tree_component/mount.js",
        "tree_component/tree.js",
        "tree_component/pieces.js",
        "replay_component/player.js",
        "requests_component/plot.js",
        "requests_component/flow.js",
        "requests_component/gantt.js",
        "requests_component/batch.js",
        "requests_component/sofar.js",
        "requests_component/story.js",
        "requests_component/requests.js",
    ),
)


def requests_view(payload: dict[str, Any], *, key: str, on_ask: Callable[[], None]) -> None:
    """Draw a payload of `workbench.view.requests_payload`; `on_ask` runs when it wants more."""
    _REQUESTS(data=payload | {"view": key}, key=key, on_ask_change=on_ask)


def asked(key: str) -> dict[str, Any]:
    """Inside `on_ask`: the question."""
    return dict(st.session_state[key].get("ask") or {})
