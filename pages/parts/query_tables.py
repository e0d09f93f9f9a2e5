"""The tables and columns a query can name, each with its meaning."""

from __future__ import annotations

import streamlit as st

from workbench.query import columns
from workbench.query.tables import NAMES
from workbench.store.meanings import TABLE_MEANINGS


def tables() -> None:
    """Folded: one table at a time."""
    with st.expander(
        "Tables and columns", icon=":material/table:", key="query/tables", on_change="rerun"
    ):
        if not st.session_state["query/tables"]:
            return
        name = st.segmented_control(
            "Table", NAMES, default=NAMES[0], required=True, key="query/table",
            label_visibility="collapsed",
        )  # fmt: skip
        st.caption(TABLE_MEANINGS[name])
        rows = [
            {"Column": column.name, "Type": column.type.lower(), "Meaning": column.meaning}
            for column in columns(name)
        ]
        st.dataframe(
            rows, hide_index=True, key=f"query/columns/{name}", alt=f"Columns of {name}",
            height=min(38 + 35 * len(rows), 390),
            column_config={
                "Column": st.column_config.TextColumn(width=150),
                "Type": st.column_config.TextColumn(width=90),
                "Meaning": st.column_config.TextColumn(width="large"),
            },
        )  # fmt: skip
