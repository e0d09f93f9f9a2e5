"""Parts of the Race page: which prompt and runs, then the race itself."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import streamlit as st

from engine.errors import UserError
from pages.parts.run_picker import no_runs
from workbench.view.forms import escape_markdown
from workbench.view.race import (
    MOST_LANES,
    Group,
    first_choice,
    groups,
    lane_label,
    questions,
    race_payload,
)
from workbench.view.runs_frame import stored_runs

_VIEW, _PROMPT, _RUNS, _QUESTION = "race-view", "race", "lanes", "question"


def _read(*names: str) -> str:
    folder = files("workbench.view")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


_RACE = st.components.v2.component(
    "draftree_race",
    html=_read("race_component/race.html"),
    css=_read("tree_component/live.css", "race_component/race.css"),
    js=_read(
        "tree_component/mount.js", "tree_component/tree.js", "tree_component/pieces.js",
        "race_component/race.js"
    ),
)  # fmt: skip


@st.cache_data(show_spinner="Reading the runs", max_entries=16)
def _payload(run_ids: tuple[str, ...], request: int) -> dict[str, Any]:
    return race_payload(run_ids, request)


@st.cache_data(show_spinner=False, max_entries=16)
def _questions(run_ids: tuple[str, ...]) -> list[tuple[int, str]]:
    return [tuple(question) for question in questions(run_ids)]


def choose_race() -> tuple[tuple[str, ...], int] | None:
    """Runs and request; None where there is nothing to race yet, with what to do."""
    stored = stored_runs()
    found = {group.key: group for group in groups(stored)}
    if not stored:
        no_runs()
        return None
    if not found:
        st.info(
            "A race takes two runs of one prompt. Run the same prompt with another method on the "
            "Run page, or compare methods on the Compare page.",
            icon=":material/info:",
        )
        return None
    left, place = st.columns(2)
    with left:
        key = _select("Prompt", _PROMPT, {key: group.label for key, group in found.items()})
    run_ids = _lanes(found[key])
    if len(run_ids) < 2:
        st.info(f"Choose 2 to {MOST_LANES} runs to race.", icon=":material/info:")
        return None
    try:
        asked = dict(_questions(run_ids))
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return None
    if not asked:
        st.info("These runs decoded no question in common.", icon=":material/info:")
        return None
    if len(asked) == 1:
        return run_ids, next(iter(asked))
    with place:
        names = {str(request): label for request, label in asked.items()}
        return run_ids, int(_select("Question", _QUESTION, names))


def race_view(run_ids: tuple[str, ...], request: int) -> None:
    """The race: all of it in the browser."""
    try:
        payload = _payload(run_ids, request)
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    _RACE(data=payload | {"view": _VIEW}, key=_VIEW)


def _select(label: str, key: str, names: dict[str, str]) -> str:
    """A box bound to the address; what the address names but is not there is let go."""
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    return st.selectbox(
        label, list(names), key=key, bind="query-params",
        format_func=lambda value: names.get(value, value),
    )  # fmt: skip


def _lanes(group: Group) -> tuple[str, ...]:
    """The runs to race, at first one of each method; the address names them."""
    labels = {entry.run_id: lane_label(entry) for entry in group.entries}
    if st.session_state.get("race/of") not in (None, group.key):
        st.session_state.pop(_RUNS, None)  # another prompt has other runs
    st.session_state["race/of"] = group.key
    known = [run_id for run_id in st.session_state.get(_RUNS, []) if run_id in labels]
    if _RUNS in st.session_state and known != list(st.session_state[_RUNS]):
        st.session_state[_RUNS] = known
    chosen = st.multiselect(
        "Runs", list(labels), default=None if _RUNS in st.session_state else first_choice(group),
        key=_RUNS, bind="query-params", max_selections=MOST_LANES,
        format_func=lambda run_id: labels.get(run_id, run_id),
    )  # fmt: skip
    return tuple(chosen)
