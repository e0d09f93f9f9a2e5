"""Run specs on the Run page: taken from a file, a study or another page; the choice as a file."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.errors import UserError
from workbench.specfile import parse_spec, spec_text
from workbench.view.forms import build_spec, escape_markdown
from workbench.view.run_spec import widgets_of

#: where other pages put the text of a spec that they want used here
TO_RUN = "run/spec"
_FROM, _SAID, _UPLOAD = "run/spec-from", "run/spec-said", "run/upload"


def take_spec() -> None:
    """Before any widget of the form: hold what another page or `?spec=STUDY` asks for."""
    text = st.session_state.pop(TO_RUN, None)
    name = st.query_params.get("spec")
    if text is not None:
        _take(text.encode(), where="The spec")
    elif name and st.session_state.get(_FROM) != name:
        st.session_state[_FROM] = name
        try:
            _take(_of_study(name).encode(), where=f"Study {name[:80]}")
        except UserError as error:
            st.session_state[_SAID] = ("error", str(error))


def spec_panel(fields: dict[str, Any]) -> None:
    """What became of a spec that was taken; folded: taking one and saving the present choice."""
    if said := st.session_state.get(_SAID):
        kind, sentence = said
        if kind == "error":
            st.warning(escape_markdown(sentence), icon=":material/warning:")
        else:
            st.caption(f":material/check_circle: {escape_markdown(sentence)}")
    with st.expander("Spec as a file", icon=":material/description:"):
        st.file_uploader(
            "Take a spec", type="json", key=_UPLOAD, on_change=_uploaded,
            help="What draftree run --save-spec and draftree tune write.",
        )  # fmt: skip
        try:
            text = spec_text(build_spec(**fields))
        except UserError as error:
            st.caption(f":material/info: {escape_markdown(str(error))}")
            return
        st.download_button(
            "Save this choice", text, file_name="run.spec.json", mime="application/json",
            icon=":material/download:", on_click="ignore", width="stretch", key="run/save-spec",
            help="draftree run --spec FILE does the same run.",
        )  # fmt: skip


def _uploaded() -> None:
    """A callback: only before the form is drawn may its widgets be set."""
    file = st.session_state.get(_UPLOAD)
    if file is not None:
        _take(file.getvalue(), where=file.name)


def _take(raw: bytes, *, where: str) -> None:
    try:
        taken = widgets_of(parse_spec(raw, where=where))
    except UserError as error:
        st.session_state[_SAID] = ("error", str(error))
        return
    for key, value in taken.widgets.items():
        st.session_state[key] = value
    said = f"{where} was taken over."
    if taken.left_out:
        said += f" This page has no place for: {', '.join(taken.left_out)}."
    st.session_state[_SAID] = ("info", said)


def _of_study(name: str) -> str:
    """The best of a study. Raises UserError."""
    from workbench.tuning.study import load_study
    from workbench.view.tune_study import spec_file

    text = spec_file(load_study(name))
    if not text:
        raise UserError(f"Study {name} has no trial yet that was measured to its end.")
    return text
