"""Choosing the pair: the embedded one, models of this machine, or any path or hub id."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.registry import METHODS
from workbench import discovery
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET
from workbench.view.forms import escape_markdown
from workbench.view.pairing import pair_says
from workbench.view.visible import safe_text

_EMBEDDED, _OTHER = "Embedded pair", "Other models"
_ICONS = {True: ":material/check_circle:", False: ":material/warning:", None: ":material/help:"}


@st.cache_data(ttl=30, show_spinner=False)
def _known() -> list[discovery.Model]:
    return discovery.models()


def choose_pair(method: str) -> dict[str, Any]:
    """Target and draft as a spec takes them, with a word on whether they fit."""
    which = st.segmented_control(
        "Models", [_EMBEDDED, _OTHER], default=_EMBEDDED, required=True, key="pair", width="stretch"
    )
    if which == _EMBEDDED:
        return {"target": EMBEDDED_TARGET, "draft": EMBEDDED_DRAFT}
    known = _known()
    target = _model("Target", "target", known)
    needs_draft = METHODS[method].needs_draft
    draft = _model("Draft", "draft", known, disabled=not needs_draft)
    said = pair_says(method, target, draft, known)
    if said is not None:
        text = f"{_ICONS[said.works]} {escape_markdown(said.sentence)}"
        if said.works is False:
            st.warning(text)
        else:
            st.caption(text)
    return {"target": target, "draft": draft}


def _model(label: str, key: str, known: list[discovery.Model], *, disabled: bool = False) -> str:
    labels = {model.name: safe_text(discovery.label(model)) for model in known}
    chosen = st.selectbox(
        label, list(labels), index=None, key=key, persist_state="page", accept_new_options=True,
        format_func=lambda name: labels.get(name, safe_text(str(name))), disabled=disabled,
        placeholder="Choose, or type a folder or hub id",
        help="Found in the local Hugging Face cache, in ./models and in the folders that "
        "DRAFTREE_MODELS names. Anything else may be typed.",
    )  # fmt: skip
    return (chosen or "").strip()
