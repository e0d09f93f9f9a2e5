"""The replay as a component: it shares tree, pieces and styles with the decoding view."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import streamlit as st

_VIEW = files("workbench.view")


def _read(*names: str) -> str:
    return "\n".join(_VIEW.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names)


_REPLAY = st.components.v2.component(
    "draftree_replay",
    html=_read("replay_component/replay.html"),
    css=_read("tree_component/live.css", "replay_component/replay.css"),
    js=_read(
        "tree_component/mount.js",
        "tree_component/tree.js",
        "tree_component/pieces.js",
        "replay_component/timeline.js",
        "replay_component/player.js",
        "replay_component/side.js",
        "replay_component/replay.js",
    ),
)


def replay_view(payload: dict[str, Any], *, key: str, on_ask: Callable[[], None]) -> None:
    """Draw a payload of `workbench.view.replay_payload`; `on_ask` runs when it wants more."""
    _REPLAY(data=payload | {"view": key}, key=key, on_ask_change=on_ask)


def asked(key: str) -> dict[str, Any]:
    """Inside `on_ask`: the question."""
    return dict(st.session_state[key].get("ask") or {})
