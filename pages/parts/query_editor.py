"""What to ask, and of which runs."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from pages.parts.run_picker import pick_runs
from workbench.query import EXAMPLES, Query, queryable
from workbench.view.runs_frame import stored_runs

_NEWEST = {"20": 20, "50": 50, "200": 200, "500": 500}
_CHOSEN = "Chosen"
_MOST_IN_ADDRESS = 2_000


def examples() -> None:
    """A button for each; one click shows its query and answers it."""
    with st.container(horizontal=True, gap="small"):
        for example in EXAMPLES:
            st.button(
                example.name,
                key=f"example/{example.name}",
                help=example.question,
                type="tertiary",
                icon=":material/lightbulb:",
                on_click=_take,
                args=(example.sql,),
            )


def choose_runs() -> list[str]:
    """The runs that are asked: the newest so many, or some from a table."""
    stored = stored_runs()
    offered = [name for name, most in _NEWEST.items() if most == 20 or len(stored) > most // 2]
    which = st.segmented_control(
        "Runs", [*offered, _CHOSEN], default=offered[min(1, len(offered) - 1)], required=True,
        key="query/which", format_func=lambda name: name if name == _CHOSEN else f"Newest {name}",
        help="Every run is a file; the fewer are asked, the sooner the answer is there.",
    )  # fmt: skip
    if which == _CHOSEN:
        return pick_runs("query", most=500)
    found = queryable(_NEWEST[which], entries=stored)
    if found.num_stored > len(found.run_ids):
        st.caption(f"The newest {len(found.run_ids)} of {found.num_stored} stored runs are asked.")
    return found.run_ids


def editor(run_ids: list[str]) -> bool:
    """The text of the query and its buttons; returns whether they are those of a query under way.

    That query is kept in the session.
    """
    if "query/sql" not in st.session_state:
        st.session_state["query/sql"] = st.query_params.get("sql") or EXAMPLES[0].sql
    running: Query | None = st.session_state.get("query/running")
    active = running is not None and not running.done
    st.html(
        "<style>.st-key-query-sql textarea { font-family: var(--st-code-font, monospace); }</style>"
    )
    st.text_area("SQL", key="query/sql", height=210)
    with st.container(horizontal=True):
        pressed = st.button(
            "Run query", type="primary", icon=":material/play_arrow:", key="query/run",
            disabled=active or not run_ids,
        )  # fmt: skip
        st.button(
            "Cancel", icon=":material/stop:", key="query/cancel", disabled=not active,
            on_click=_cancel,
        )  # fmt: skip
    if not run_ids:
        st.caption("Choose at least one run in the table above.")
    if (pressed or st.session_state.pop("query/asked", False)) and run_ids:
        _start(st.session_state["query/sql"], run_ids)
        st.rerun()
    return active


def _take(sql: str) -> None:
    _cancel()
    st.session_state["query/sql"], st.session_state["query/asked"] = sql, True


def _cancel() -> None:
    running: Query | None = st.session_state.get("query/running")
    if running is not None and not running.done:
        running.cancel()


def _start(sql: str, run_ids: list[str]) -> None:
    st.session_state["query/problem"] = None
    st.session_state["query/running"] = None
    try:
        st.session_state["query/running"] = Query(sql, run_ids)
    except UserError as error:
        st.session_state["query/problem"] = str(error)
    if len(sql) <= _MOST_IN_ADDRESS:
        st.query_params["sql"] = sql
    elif "sql" in st.query_params:
        del st.query_params["sql"]
