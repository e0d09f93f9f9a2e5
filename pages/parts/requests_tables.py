"""Tables below the requests view: each request with its figures, and what each client got."""

from __future__ import annotations

from typing import Any

import streamlit as st

from workbench.view.requests import Served
from workbench.view.requests_table import clients_frame, fairness, requests_frame

_MS = "%.0f ms"


def tables(served: Served, *, key: str) -> None:
    """Requests, then fairness by client where there are several."""
    frame = requests_frame(served)
    with st.expander("Requests", icon=":material/table_rows:", expanded=True):
        st.dataframe(
            frame, hide_index=True, column_config=_columns(), placeholder="–",
            alt="Requests in the order of arrival", key=f"requests/table/{key}",
            height=min(38 + 35 * len(frame), 390),
        )  # fmt: skip
        st.download_button(
            "Requests as CSV", lambda: frame.to_csv(index=False), file_name=f"{key}-requests.csv",
            mime="text/csv", icon=":material/download:", on_click="ignore",
        )  # fmt: skip
    clients = clients_frame(served)
    index = fairness(clients)
    if index is None:
        return
    with st.expander("Fairness by client", icon=":material/balance:", expanded=True):
        st.caption(
            f"Jain's index over the tokens per second of {len(clients)} clients is {index:.2f}; 1 "
            f"is the same for each, {1 / len(clients):.2f} all for one."
        )
        st.dataframe(
            clients, hide_index=True, column_config=_client_columns(), placeholder="–",
            alt="What each client asked for and got", key=f"requests/clients/{key}",
        )  # fmt: skip


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "request": number("Request", pinned=True, format="#%d"),
        "client": text("Client"),
        "ended": text("Ended", help="eos, stop string and length: it completed."),
        "arrival": number("Arrived", format="%.2f s"),
        "wait": number("Waited", format=_MS, help="From arrival to the start of prefill."),
        "ttft": number("ttft", format=_MS, help="From arrival to the first token."),
        "tpot": number("tpot", format="%.1f ms", help="Per token after the first."),
        "e2el": number("e2el", format=_MS, help="From arrival to the end of the answer."),
        "prompt": number("Prompt", help="Tokens of the prompt."),
        "tokens": number("Tokens", help="Tokens kept."),
        "steps": number("Steps"),
        "nodes": number("Nodes/step", format="%.1f", help="Mean of drafted nodes scored for it."),
        "deadline": text("Deadline"),
        "message": text("Message"),
        "where": text("Served by", help="Replica, and model pair where there are several."),
    }


def _client_columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "client": text("Client", pinned=True),
        "requests": number("Requests"),
        "completed": number("Completed"),
        "refused": number("Refused"),
        "tokens": number("Tokens"),
        "share": st.column_config.ProgressColumn(
            "Share of tokens", format="%.0f %%", min_value=0, max_value=100, color="green"
        ),
        "rate": number("Tokens/s", format="%.1f", help="Over the time that its requests took."),
        "wait": number("Waited, median", format=_MS),
        "ttft": number("ttft, median", format=_MS),
        "e2el": number("e2el, median", format=_MS),
        "nodes": number("Nodes/step", format="%.1f"),
    }
