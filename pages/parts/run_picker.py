"""Choosing stored runs: one by its line, or several from a table. Pages share these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAPIException

from engine.errors import UserError
from workbench.store import RunEntry, resolve_run
from workbench.view.forms import escape_markdown
from workbench.view.runs_frame import places, run_label, runs_frame, stored_runs

Where = Callable[[RunEntry], bool]

_RUN_PAGE = Path(__file__).resolve().parents[1] / "run.py"
_BOUND = "run"  # the key whose choice the address bar names
_COLUMNS = {
    "method": st.column_config.TextColumn("Method"),
    "options": st.column_config.TextColumn("Options"),
    "prompt": st.column_config.TextColumn("Prompt or workload"),
    "models": st.column_config.TextColumn("Models"),
    "status": st.column_config.TextColumn("Status"),
    "tokens_per_step": st.column_config.NumberColumn("Tokens/step", format="%.2f"),
    "tokens_per_second": st.column_config.NumberColumn("Tokens/s", format="%.0f"),
    "tokens": st.column_config.NumberColumn("Tokens"),
    "when": st.column_config.DatetimeColumn("When", format="D MMM HH:mm"),
}


def pick_run(key: str, *, label: str = "Run", where: Where | None = None) -> str | None:
    """A box to choose one stored run, the newest at first; its id, None where there is none.

    With `key` "run" the address bar names the run: `?run=` takes an id, the beginning or the end
    of one, or `last`. `where` says which entries are offered.
    """
    entries = _offered(where)
    if not entries:
        return None
    labels = {entry.run_id: run_label(entry) for entry in entries}
    widget = f"{key}/picked"
    if st.session_state.get(widget) not in labels:
        st.session_state.pop(widget, None)
    if key == _BOUND:
        _follow_address(widget, labels)
    chosen = st.selectbox(
        label, list(labels), key=widget, format_func=lambda run_id: labels.get(run_id, run_id)
    )
    if key == _BOUND and st.query_params.get(_BOUND) != chosen:
        st.query_params[_BOUND] = chosen
    st.session_state[f"{widget}/address"] = chosen
    return chosen


def pick_runs(key: str, *, where: Where | None = None, most: int | None = None) -> list[str]:
    """A table of the stored runs in which several can be chosen; their ids, newest first.

    The choice stays with its runs when others are stored or removed. `most` bounds it.
    """
    entries = _offered(where)
    if not entries:
        return []
    frame = runs_frame(entries)
    ids = [entry.run_id for entry in entries]
    memory = f"{key}/chosen"
    rows = places(ids, st.session_state.get(memory, []))
    digest = hashlib.blake2b("".join(ids).encode(), digest_size=8).hexdigest()
    state = st.dataframe(
        frame, key=f"{key}/table/{digest}", hide_index=True, column_config=_COLUMNS,
        on_select="rerun", selection_mode="multi-row", alt="Stored runs, newest first",
        selection_default={"selection": {"rows": rows, "columns": [], "cells": []}},
        placeholder="–", height=min(38 + 35 * len(ids), 390),
    )  # fmt: skip
    chosen = [ids[row] for row in sorted(state.selection.rows) if row < len(ids)]
    if most is not None and len(chosen) > most:
        st.caption(f"{len(chosen)} are chosen; the newest {most} of them are used.")
        chosen = chosen[:most]
    st.session_state[memory] = chosen
    return chosen


def no_runs() -> None:
    """What to do when nothing is stored yet."""
    with st.container(border=True):
        st.markdown("**No runs are stored yet**")
        st.markdown(
            "Choose a method and a prompt on the Run page and press Run: every run is stored and "
            "can then be opened here."
        )
        try:
            st.page_link(
                st.Page(_RUN_PAGE, default=True), label="Go to Run", icon=":material/play_circle:"
            )
        except StreamlitAPIException:  # a page shown by itself has no neighbours to link to
            st.caption("Start the workbench with `draftree app`.")


def _offered(where: Where | None) -> list[RunEntry]:
    """The entries to choose from; says what to do where there are none."""
    stored = stored_runs()
    if not stored:
        no_runs()
        return []
    offered = [entry for entry in stored if where is None or where(entry)]
    if not offered:
        count = "The stored run does" if len(stored) == 1 else f"The {len(stored)} stored runs do"
        st.info(f"{count} not fit here. Make another on the Run page.", icon=":material/info:")
    return offered


def _follow_address(widget: str, labels: dict[str, str]) -> None:
    """Choose what the address bar names, when it names another run than the last time."""
    wanted = st.query_params.get(_BOUND)
    if not wanted or wanted == st.session_state.get(f"{widget}/address"):
        return
    try:
        run_id = resolve_run(wanted)
        if run_id not in labels:
            raise UserError(f"Run {run_id} cannot be shown here.")
        st.session_state[widget] = run_id
    except UserError as error:
        st.warning(escape_markdown(f"{error} The newest run is shown."), icon=":material/warning:")
