"""Choosing one of what is stored under names; the address bar names it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import streamlit as st

from workbench.view.forms import escape_markdown


def pick_named(
    label: str, names: Collection[str], *, page: str, active: bool, coming: bool = False,
    told: Callable[[str], str] = str,
) -> str:  # fmt: skip
    """A box over `names`, the first at first. The address has it as `?LABEL=`, in small letters.

    `page` is the beginning of its keys. `active`: a job is under way, which may be about to store
    what the address names; `coming`: it surely is, so that the address stays as it is.
    """
    address, key, followed = label.lower(), f"{page}/chosen", f"{page}/from"
    wanted = st.query_params.get(address)
    if wanted in names and st.session_state.get(followed) != wanted:
        st.session_state[key] = wanted
    elif wanted and wanted not in names and not active:
        st.warning(escape_markdown(f"There is no {address} {wanted[:80]!r}; another one is shown."),
                   icon=":material/warning:")  # fmt: skip
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    chosen = st.selectbox(
        label, list(names), key=key, persist_state="session",
        format_func=lambda name: told(name) if name in names else name,
    )  # fmt: skip
    if not coming:
        st.query_params[address] = st.session_state[followed] = chosen
    return chosen
