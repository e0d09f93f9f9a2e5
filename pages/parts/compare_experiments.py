"""Stored experiments on the Compare page: choose one, see whether its models are here, start it."""

from __future__ import annotations

import streamlit as st

from engine.errors import UserError
from pages.parts.jobs import start_job
from pages.parts.models import known_models
from workbench.comparing.result import CompareSpec
from workbench.experiments.at_hand import at_hand, missing_told, on_this_machine
from workbench.experiments.stored import Experiment, experiment_names, load_experiment
from workbench.view.compare_experiments import measured_told, widgets_of
from workbench.view.forms import escape_markdown


def experiments_panel(*, active: bool) -> None:
    """Folded: reading them looks for models on this machine."""
    with st.expander(
        "Stored experiments", icon=":material/science:", key="compare/experiments",
        on_change="rerun",
    ) as opened:  # fmt: skip
        if not opened.open:
            return
        try:
            titles = {name: load_experiment(name).title for name in experiment_names()}
            chosen = st.selectbox(
                "Experiment", list(titles), key="compare/experiment", persist_state="session",
                format_func=lambda name: titles.get(name, name),
                help="Also from a terminal: draftree experiments.",
            )  # fmt: skip
            experiment = load_experiment(chosen)
        except UserError as error:
            st.warning(escape_markdown(str(error)), icon=":material/warning:")
            return
        _chosen(experiment, active=active)


def _chosen(experiment: Experiment, *, active: bool) -> None:
    spec = experiment.compare
    st.caption(escape_markdown(experiment.about))
    st.caption(escape_markdown(measured_told(spec)))
    missing = [one for one in at_hand(spec, experiment.models, known_models()) if one.problem]
    if missing:
        st.warning(escape_markdown(missing_told(missing)), icon=":material/download:")
    else:
        st.caption(":material/check_circle: All models are on this machine.")
    with st.container(horizontal=True):
        st.button(
            "Measure it", icon=":material/speed:", key="compare/experiment/start",
            disabled=active or bool(missing), on_click=_start, args=(experiment,), width="stretch",
        )  # fmt: skip
        st.button(
            "Into the form", icon=":material/edit:", key="compare/experiment/take",
            on_click=_take, args=(spec,), width="stretch",
            help="To change it: other models, fewer prompts, one number format.",
        )  # fmt: skip


def _start(experiment: Experiment) -> None:
    spec, problem = None, None
    try:
        spec = on_this_machine(experiment, experiment.compare)
    except UserError as error:
        problem = str(error)
    start_job("compare", spec, problem)


def _take(spec: CompareSpec) -> None:
    """A callback: only before the form is drawn may its widgets be set."""
    for key, value in widgets_of(spec).items():
        st.session_state[key] = value
