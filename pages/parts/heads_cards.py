"""Trained heads with their cards: how often they are right, what they cost, the way to Run."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts.charts import show_figure, theme
from pages.parts.models import known_models
from pages.parts.run_spec import TO_RUN
from workbench.figures.heads import accuracy_bars
from workbench.view import heads_runs
from workbench.view.forms import escape_markdown
from workbench.view.heads_cards import Head, accuracies, facts, heads, trial_spec
from workbench.view.heads_form import KIND_LABELS

_RUN = Path(__file__).resolve().parents[1] / "run.py"
_ABREAST = """<style>
.st-key-heads-cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr));
}
</style>"""


def heads_view(*, active: bool) -> None:
    """A card for each head that is here."""
    found = heads(heads_runs.trainings(), known_models())
    if not found:
        with st.container(border=True):
            st.markdown("**No head is trained yet**")
            st.markdown("Press **Train** on the left; a finished training has its card here.")
        return
    st.html(_ABREAST)
    with st.container(horizontal=True, key="heads-cards"):
        for at, head in enumerate(found):
            with st.container(border=True, key=f"heads-card-{at}"):
                _card(head, at)


def open_on_run_page(head: Head) -> None:
    """Leave for the Run page, with the method, the target and this head set there."""
    st.session_state[TO_RUN] = trial_spec(head)
    st.switch_page(st.Page(_RUN))


def _card(head: Head, at: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center",
                      horizontal_alignment="distribute"):  # fmt: skip
        st.markdown(f"**{escape_markdown(head.title)}**", width="content")
        kind = KIND_LABELS.get(head.kind, head.kind)
        if kind:
            st.badge(f"{kind}, embedded" if head.embedded else kind, color="green")
    if head.problem:
        st.warning(escape_markdown(head.problem), icon=":material/warning:")
    frame = accuracies(head.card)
    if len(frame):
        st.caption(
            "Right on text held out: first guess · first five. +2 is the token after the next one."
        )
        show_figure(accuracy_bars(frame, theme=theme()), key=f"heads/card/{at}")
    st.caption("  \n".join(f"**{name}:** {escape_markdown(said)}" for name, said in facts(head)))
    if st.button(
        "Try it", icon=":material/play_circle:", key=f"heads/card/{at}/try",
        disabled=bool(head.problem or not head.kind), help="Opens the Run page with this head.",
    ):  # fmt: skip
        open_on_run_page(head)
