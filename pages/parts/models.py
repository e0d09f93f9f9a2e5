"""Choosing the pair: the embedded one, models of this machine, or any path or hub id."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.registry import METHODS
from engine.tree import MOST_DRAFTS
from workbench import discovery
from workbench.spec import EMBEDDED_TARGET, embedded_draft
from workbench.view.forms import escape_markdown
from workbench.view.pairing import fitting, pair_says
from workbench.view.visible import safe_text

_EMBEDDED, _OTHER = "Embedded pair", "Other models"
_ICONS = {True: ":material/check_circle:", False: ":material/warning:", None: ":material/help:"}


@st.cache_data(ttl=30, show_spinner=False)
def known_models() -> list[discovery.Model]:
    """Models of this machine, looked for at most twice a minute."""
    return discovery.models()


def choose_pair(method: str) -> dict[str, Any]:
    """Target and draft as a spec takes them, with a word on whether they fit."""
    which = st.segmented_control(
        "Models", [_EMBEDDED, _OTHER], default=_EMBEDDED, required=True, key="pair", width="stretch"
    )
    if which == _EMBEDDED:
        draft = embedded_draft(method)
        if not METHODS[method].same_vocabulary:
            st.caption(f"{draft} drafts: its tokens are bytes, and the two models meet in text.")
        pair = {"target": EMBEDDED_TARGET, "draft": draft}
        return pair | _more_drafts(method, EMBEDDED_TARGET, draft, typed=False)
    known = known_models()
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
    return {"target": target, "draft": draft} | _more_drafts(method, target, draft, typed=True)


def _more_drafts(method: str, target: str, draft: str, *, typed: bool) -> dict[str, Any]:
    """More draft models, folded, where the method merges their trees and there is a choice."""
    if not (target and draft and METHODS[method].merges):
        return {}
    labels = {model.name: safe_text(discovery.label(model)) for model in _fitting(target, draft)}
    if not (labels or typed):
        return {}
    with st.expander("More draft models", icon=":material/account_tree:"):
        chosen = st.multiselect(
            "Merge with the trees of", list(labels), key="other_drafts", persist_state="page",
            accept_new_options=typed, max_selections=MOST_DRAFTS - 1,
            format_func=lambda name: labels.get(name, safe_text(str(name))),
            placeholder="Choose, or type a folder or hub id" if typed else "Choose",
            help="Each model drafts a tree of its own, one after another; the target scores all "
            "of them at once as one tree. Their vocabulary must be the target's.",
        )  # fmt: skip
        others = [name.strip() for name in chosen if name.strip()]
        for name in others:
            said = pair_says(method, target, name, known_models())
            if said is not None and said.works is False:
                st.warning(f"{escape_markdown(name)}: {escape_markdown(said.sentence)}")
    return {"other_drafts": others}


@st.cache_data(ttl=30, show_spinner=False)
def _fitting(target: str, draft: str) -> list[discovery.Model]:
    return fitting(target, [draft], known_models())


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
