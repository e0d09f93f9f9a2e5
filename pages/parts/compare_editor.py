"""Adding a method with options, from what the method itself documents; lists make several."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from engine.options import OptionInfo
from engine.registry import METHODS, describe, method_names
from workbench.view.compare_form import arm_of
from workbench.view.forms import escape_markdown


def arm_editor(key: str) -> None:
    """A form whose button adds an arm to the selection kept under `key`."""
    methods = [name for name in method_names() if name != "autoregressive"]
    method = st.selectbox(
        "Method", methods, key=f"{key}/method", index=methods.index("dynamic-tree")
    )
    st.caption(escape_markdown(METHODS[method].summary))
    infos = describe(method)
    typed = {info.name: _field(key, method, info) for info in infos}
    arm = arm_of(method, typed, [info.name for info in infos if _holds_commas(info)])
    st.code(arm, language=None, wrap_lines=True)
    st.button(
        "Add", icon=":material/add:", key=f"{key}/add", on_click=_add, args=(key, arm),
        width="stretch",
    )  # fmt: skip
    if problem := st.session_state.pop(f"{key}/problem", None):
        st.warning(escape_markdown(problem), icon=":material/warning:")


def _field(key: str, method: str, info: OptionInfo) -> str:
    label, name = info.name.replace("_", " ").capitalize(), f"{key}/{method}/{info.name}"
    if info.choices:
        chosen = st.multiselect(
            label, info.choices, key=name, placeholder=str(info.default), help=info.help
        )
        return ",".join(chosen)
    several = (
        "Several with bars between." if _holds_commas(info) else "Several with commas between."
    )
    return st.text_input(
        label, key=name, placeholder=str(info.default), help=f"{info.help}. {several}"
    )


def _holds_commas(info: OptionInfo) -> bool:
    return info.type == "str" and not info.choices


def _add(key: str, arm: str) -> None:
    """A callback: only there may the selection be changed."""
    from workbench.comparing.arms import parse_arms

    try:
        parse_arms([arm])
    except UserError as error:
        st.session_state[f"{key}/problem"] = str(error)
        return
    st.session_state[key] = list(dict.fromkeys([*st.session_state[key], arm]))
