"""Charts and tables of a report as page elements, in the page's theme."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from workbench.figures.theme import CONFIG
from workbench.report.content import Chart, Table
from workbench.view.forms import escape_markdown
from workbench.view.theme import ThemeName

# Rows of boxes wrap by their width, which columns do not: charts stay readable beside the sidebar.
_TWO_ABREAST = """<style>
.st-key-charts > [data-testid=stLayoutWrapper]:has(> [class*=st-key-chart-wide]) { flex: 1 1 100%; }
.st-key-charts > [data-testid=stLayoutWrapper]:has(> [class*=st-key-chart-half]) {
  flex: 1 1 430px; max-width: 100%; align-self: stretch;
}
.st-key-charts > [data-testid=stLayoutWrapper] > div { height: 100%; }
</style>"""


def theme() -> ThemeName:
    """The theme that the page is shown in."""
    return "dark" if st.context.theme.type == "dark" else "light"


def show_charts(charts: Sequence[Chart], *, key: str) -> None:
    """Each chart under its heading with the sentence that reads it; two abreast where they fit."""
    st.html(_TWO_ABREAST)
    with st.container(horizontal=True, key="charts"):
        for at, chart in enumerate(charts):
            width = "wide" if chart.wide or len(charts) == 1 else "half"
            with st.container(border=True, key=f"chart-{width}-{at}"):
                st.markdown(f"**{escape_markdown(chart.heading)}**")
                if chart.reading:
                    st.caption(escape_markdown(chart.reading))
                show_figure(chart.draw(theme()), key=f"{key}/{at}/{chart.heading}")


def show_figure(figure: go.Figure, *, key: str) -> None:
    """A figure in its own colours, without the page's."""
    st.plotly_chart(figure, theme=None, config=CONFIG, key=key)


def show_table(table: Table) -> None:
    """A table whose cells are text; numbers stand right."""
    columns = {
        f"c{at}": st.column_config.TextColumn(
            column.name or " ", alignment="right" if column.number else "left"
        )
        for at, column in enumerate(table.columns)
    }
    frame = pd.DataFrame(table.rows, columns=list(columns))
    st.markdown(f"**{escape_markdown(table.heading)}**")
    st.dataframe(frame, hide_index=True, column_config=columns, alt=table.heading)
    if table.note:
        st.caption(escape_markdown(table.note))
