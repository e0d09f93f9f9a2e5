"""The answer to a query: waited for without holding the page, then a table, a file, a chart."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from workbench.figures.quick import quick
from workbench.figures.theme import CONFIG
from workbench.query import Query, Result
from workbench.query.output import to_csv
from workbench.view.forms import escape_markdown
from workbench.view.query_frame import axes, result_frame

_TICK_S = 0.3
_NO_GROUPS = "–"


def result_panel(*, active: bool) -> None:
    """What became of the query under way, or of the last one.

    `active` is what the buttons were drawn for; the page is drawn anew where it changed since.
    """
    if problem := st.session_state.get("query/problem"):
        _say(problem)
        return
    query: Query | None = st.session_state.get("query/running")
    if query is None:
        return
    was_done = query.wait(_TICK_S)  # most are answered by now
    if was_done and active:
        st.rerun()
    st.fragment(_wait, run_every=None if was_done else _TICK_S)(query, was_done)
    if was_done:
        _show(query)


def _wait(query: Query, was_done: bool) -> None:
    if was_done:
        return
    if query.done:
        st.rerun()
    most = query.limits.seconds
    st.progress(
        min(1.0, query.elapsed / most),
        text=f"Asking, {query.elapsed:.0f} s; stopped by itself after {most:.0f} s",
    )


def _show(query: Query) -> None:
    try:
        result = query.result()
    except UserError as error:
        _say(str(error))
        return
    _summary(result)
    if not result.rows:
        st.info("No row fits. Ask more runs, or loosen WHERE and HAVING.", icon=":material/info:")
        return
    frame = result_frame(result)
    st.dataframe(
        frame, hide_index=True, placeholder="NULL", alt="Rows of the query",
        height=min(38 + 35 * len(frame), 520),
    )  # fmt: skip
    st.download_button(
        "Download CSV", to_csv(result).encode(), file_name="query.csv", mime="text/csv",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip
    _chart(frame)


def _summary(result: Result) -> None:
    rows = "1 row" if len(result.rows) == 1 else f"{len(result.rows):,} rows"
    runs = "1 run" if result.num_runs == 1 else f"{result.num_runs} runs"
    st.caption(f"{rows} from {runs} in {result.seconds:.1f} s")
    if not result.complete:
        st.info(
            f"These are the first {len(result.rows):,} rows. Aggregate, or narrow the query with "
            "WHERE, to see the others.",
            icon=":material/info:",
        )
    if result.left_out:
        said = ", ".join(f"{run_id} ({why})" for run_id, why in result.left_out[:4])
        more = f" and {len(result.left_out) - 4} more" if len(result.left_out) > 4 else ""
        st.warning(escape_markdown(f"Left out: {said}{more}."), icon=":material/warning:")


def _chart(frame) -> None:  # type: ignore[no-untyped-def]
    found = axes(frame)
    if found is None:
        return
    with st.expander("Chart", icon=":material/bar_chart:", key="query/chart", on_change="rerun"):
        if not st.session_state["query/chart"]:
            return
        names = tuple(frame.columns)
        left, middle, right = st.columns(3)
        x = left.selectbox("Along", found.x, key=f"query/x/{names}")
        y = middle.selectbox("Up", found.y, key=f"query/y/{names}")
        by = right.selectbox(
            "Groups", [*[name for name in found.by if name != x], _NO_GROUPS],
            key=f"query/by/{names}/{x}",
        )  # fmt: skip
        figure = quick(
            frame, x=x, y=y, by=None if by == _NO_GROUPS else by,
            theme="dark" if st.context.theme.type == "dark" else "light",
        )  # fmt: skip
        st.plotly_chart(figure, config=CONFIG, theme=None, alt=f"{y} against {x}")


def _say(problem: str) -> None:
    st.error(escape_markdown(problem), title="No answer", icon=":material/error:")
