"""Stored comparisons: a table to choose one from, and the one chosen below it."""

from __future__ import annotations

import hashlib

import pandas as pd
import streamlit as st

from engine.errors import UserError
from pages.parts.compare_result import comparison_result
from pages.parts.settings import handle
from workbench.comparing import result
from workbench.jobs import COMPARE
from workbench.view.compare_list import comparisons_frame
from workbench.view.forms import escape_markdown

_ADDRESS = "comparison"
_COLUMNS = {
    "when": st.column_config.DatetimeColumn("When", format="D MMM HH:mm"),
    "fastest": st.column_config.TextColumn("Fastest method", width="medium"),
    "speedup": st.column_config.NumberColumn("Speedup", format="%.2f×"),
    "arms": st.column_config.NumberColumn("Methods"),
    "workloads": st.column_config.TextColumn("Workloads"),
    "decodes": st.column_config.NumberColumn("Decodes", help="Prompts decoded, over all arms."),
    "models": st.column_config.TextColumn("Models"),
    "status": st.column_config.TextColumn("Status"),
}


def comparisons_view() -> None:
    """The table, and the chosen comparison. The address bar names it: `?comparison=`."""
    snapshot = handle().snapshot()
    measuring = snapshot.measuring
    under_way = measuring.result if measuring.active and snapshot.kind == COMPARE else ""
    frame = comparisons_frame(under_way=under_way)
    wanted = _wanted(st.query_params.get(_ADDRESS), list(frame.index))
    if frame.empty and wanted is None:
        _nothing_yet(active=bool(under_way) or handle().active)
        return
    chosen = _table(frame, wanted) if len(frame) else wanted
    if chosen is None:
        return
    if st.query_params.get(_ADDRESS) != chosen:
        st.query_params[_ADDRESS] = chosen
    st.query_params.pop("sweep", None)
    comparison_result(chosen)


def _wanted(address: str | None, ids: list[str]) -> str | None:
    """What the address names, else the newest."""
    if not address:
        return ids[0] if ids else None
    try:
        return result.load(address).comparison_id
    except UserError as error:
        st.warning(
            escape_markdown(f"{error} The newest one is shown." if ids else str(error)),
            icon=":material/warning:",
        )
        return ids[0] if ids else None


def _table(frame: pd.DataFrame, wanted: str | None) -> str | None:
    """The comparison whose line is chosen; without one the one that was wanted."""
    ids = list(frame.index)
    digest = hashlib.blake2b("".join(ids).encode(), digest_size=8).hexdigest()
    key = f"comparisons/{digest}"
    shown = [ids.index(wanted)] if wanted in ids else []
    state = st.dataframe(
        frame, key=key, hide_index=True, column_config=_COLUMNS, on_select="rerun",
        selection_mode="single-row", placeholder="–",
        selection_default={"selection": {"rows": shown, "columns": [], "cells": []}},
        height=38 + 35 * min(len(ids), 5), alt="Stored comparisons, newest first",
    )  # fmt: skip
    rows = [row for row in state.selection.rows if row < len(ids)]
    return ids[rows[0]] if rows else wanted


def _nothing_yet(*, active: bool) -> None:
    with st.container(border=True):
        if active:
            st.markdown("**The result will stand here**")
            st.caption("The first comparison is under way; nothing else is stored yet.")
            return
        st.markdown("**No comparison is stored yet**")
        st.markdown(
            "Press **Measure** on the left: every method decodes the same prompts in turn with "
            "plain decoding, and you learn whether it pays, by how much, and what its time goes on."
        )
