"""Stored sweeps: heat maps over two options, lines over one, all cells, and going on."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from engine.errors import UserError
from pages.parts.charts import show_figure, theme
from pages.parts.compare_result import figures_table, verdict
from pages.parts.jobs import start_job
from pages.parts.named import pick_named
from pages.parts.settings import handle
from workbench.comparing import wording
from workbench.comparing.rows import Row
from workbench.figures.sweeps import heat_map, sweep_lines
from workbench.report.from_comparison import TONES
from workbench.sweeping import reading
from workbench.sweeping.frame import OPTION, axes, best_over_rest, cell_frame, sweep_rows
from workbench.sweeping.keeping import Sweep, load_sweep, sweep_names
from workbench.sweeping.reading import VALUES
from workbench.view.compare_result import table_frame
from workbench.view.forms import escape_markdown


def sweeps_view() -> None:
    """Choose a sweep; see its cells. The address bar names it: `?sweep=`."""
    names = sweep_names()
    if not names:
        _nothing_yet()
        return
    chosen = pick_named("Sweep", names, page="sweep", active=handle().active)
    st.query_params.pop("comparison", None)
    try:
        sweep = load_sweep(chosen)
        table = _rows(chosen, tuple(sweep.cells.items()))
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    _state(sweep)
    if not table:
        return
    best = wording.best(table)
    verdict(reading.verdict(table), tone=TONES[best.finding] if best else "open")
    if best is not None and len(table) > 2:
        st.caption(
            "The best of many looks a little better than it is: measure it again by itself before "
            "you rely on it."
        )
    _maps(sweep, table)
    st.download_button(
        "Report as one HTML file", lambda: _html(chosen), file_name=f"{chosen}.html",
        mime="text/html", icon=":material/description:", on_click="ignore",
        help="Opens anywhere, without a network.",
    )  # fmt: skip
    with st.expander("All cells", icon=":material/table_rows:"):
        figures_table(table_frame(table), file=chosen)


def _state(sweep: Sweep) -> None:
    """How far it is, and a button to go on where cells are left."""
    total, left = len(sweep.spec.cells()), len(sweep.left)
    under_way = handle().active and sweep.status == "running"
    with st.container(horizontal=True, vertical_alignment="center"):
        said = f"{total - left} of {total} cells measured"
        if left and not under_way:
            said += f"; {sweep.status}" if sweep.status != "finished" else ""
        st.caption(escape_markdown(f"{said}."), width="content")
        if left and not under_way:
            st.button(
                "Go on", icon=":material/play_arrow:", key="sweep/go-on", on_click=start_job,
                args=("compare", sweep.spec), disabled=handle().active,
            )  # fmt: skip
        st.download_button(
            "Sweep file", json.dumps(sweep.spec.model_dump(mode="json"), indent=2),
            file_name=f"{sweep.spec.name}.json", mime="application/json", type="tertiary",
            icon=":material/download:", on_click="ignore",
            help="`draftree sweep FILE` goes on with it in a terminal.",
        )  # fmt: skip
    for label, reason in sweep.failed.items():
        st.warning(
            escape_markdown(f"{label} was not measured: {reason}"), icon=":material/warning:"
        )


def _maps(sweep: Sweep, table: list[Row]) -> None:
    cells = _chosen_part(cell_frame(sweep, table))
    along = axes(cells)
    if not along:
        st.info("Only one cell of this method is there; see the table.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        value = st.segmented_control(
            "Shown", list(VALUES), default="speedup", required=True, key="sweep/value",
            format_func=lambda name: VALUES.get(name, name),
        )  # fmt: skip
        x = st.selectbox("Across", along, key=f"sweep/x/{'-'.join(along)}", width=200)
        others = [name for name in along if name != x]
        y = st.selectbox(
            "Down", [*others, "nothing: a line"], key=f"sweep/y/{x}/{'-'.join(along)}", width=200,
            disabled=not others,
        )  # fmt: skip
    if y in others:
        best = best_over_rest(cells, [x, y], value)
        drawn = heat_map(best, x=OPTION + x, y=OPTION + y, value=value, theme=theme())
        rest = [name for name in others if name != y]
    else:
        best = best_over_rest(cells, [x], value).assign(line=VALUES[value])
        drawn = sweep_lines(best, x=OPTION + x, by="line", value=value, theme=theme())
        rest = others
    with st.container(border=True):
        show_figure(drawn, key=f"sweep/{sweep.spec.name}/{value}/{x}/{y}")
        best_of = f" Each shows the best over {', '.join(rest)}." if rest else ""
        starred = " The best one is framed and starred." if y in others else ""
        said = f"{reading.best_cell(best, value)}{starred}{best_of}"
        if named := reading.explained(cells["method"].iloc[0], [x, y]):
            said += f" {named[0].upper()}{named[1:]}."
        st.caption(escape_markdown(said))


def _chosen_part(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of one method in one setting; asked where there are several."""
    cells = cells[[name.startswith("hf-") is False for name in cells["method"]]]
    cells = cells[~cells["method"].isin(["draft-alone", "autoregressive"])]
    for name in ("method", "workload", "dtype"):
        known = list(dict.fromkeys(cells[name].dropna()))
        if len(known) > 1:
            chosen = st.segmented_control(
                name.capitalize(), known, default=known[0], required=True, key=f"sweep/{name}"
            )
            cells = cells[cells[name] == chosen]
    return cells


def _html(name: str) -> str:
    from workbench.report.from_sweep import report_on_sweep
    from workbench.report.render import to_html

    return to_html(report_on_sweep(load_sweep(name)))


@st.cache_resource(show_spinner="Reading the cells …", max_entries=8)
def _rows(name: str, cells: tuple[tuple[str, str], ...]) -> list[Row]:
    """Rows of the cells that are done; `cells` is part of the key."""
    return sweep_rows(load_sweep(name))


def _nothing_yet() -> None:
    with st.container(border=True):
        st.markdown("**No sweep is stored yet**")
        st.markdown(
            "Give an option several values on the left, such as `dynamic-tree:nodes=[4,6,8]`, and "
            "press **Measure**: every combination is a cell, measured in turn with plain decoding. "
            "A sweep that is stopped goes on where it was."
        )
