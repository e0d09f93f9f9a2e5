"""The form of the Tune page: method, workload, objective and how many trials; the rest folded."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from engine.errors import UserError
from engine.registry import METHODS, describe, method_names
from pages.parts.busy import other_job
from pages.parts.compare_form import pace, prompts_of
from pages.parts.jobs import start_and_stop, start_job, stop_job
from workbench.jobs import TUNE
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, Dtype, Execution
from workbench.tuning.spec import TuneSpec, study_name
from workbench.view.forms import WORKLOAD_LABELS, escape_markdown
from workbench.view.tune_form import OBJECTIVE_LABELS, build_study, cost, under_free_name


def tune_form(*, active: bool) -> None:
    """Lay out the form and start what was asked for."""
    fields = _common()
    cost_place = st.container()
    pressed, cancelled = start_and_stop(
        "tune", start="Tune", icon=":material/tune:", stop="Cancel", kinds=(TUNE,), active=active
    )
    other_job(TUNE)
    with st.expander("Search space", icon=":material/tune:", key="tune/space",
                     on_change="rerun") as opened:  # fmt: skip
        typed = _space(fields["method"], shown=opened.open)
    with st.expander("Models and precision", icon=":material/settings:"):
        fields |= _rest(fields)
    problem = None
    try:
        with cost_place:
            spec = build_study(fields, typed)
            st.caption(cost(spec, prompts=prompts_of(spec.workload, spec.limit), pace=pace(spec)))
    except UserError as error:
        spec, problem = None, str(error)
        cost_place.caption(f":material/info: {escape_markdown(problem)}")
    if pressed:
        start_study(spec, problem)
        st.rerun()
    if cancelled:
        stop_job("tune")
        st.rerun()


def start_study(spec: TuneSpec | None, problem: str | None = None, *, go_on: bool = False) -> None:
    """Start a study, or keep the sentence that says why not. `go_on`: under the very name."""
    if spec is not None and not go_on:
        try:
            spec = under_free_name(spec)
        except UserError as error:
            spec, problem = None, str(error)
    if start_job("tune", spec, problem) and spec is not None:
        st.query_params["study"] = spec.name


def _common() -> dict[str, Any]:
    methods = [name for name in method_names() if name != "autoregressive"]
    method = st.selectbox(
        "Method", methods, index=methods.index("dynamic-tree"), key="tune/method",
        persist_state="session", help="Whose options are searched.",
    )  # fmt: skip
    workload = st.selectbox(
        "Workload", list(WORKLOAD_LABELS), key="tune/on", accept_new_options=True,
        persist_state="session", format_func=lambda name: WORKLOAD_LABELS.get(name, name),
        help="An embedded one, or the path of a file of prompts: JSON lines or text.",
    )  # fmt: skip
    objective = st.segmented_control(
        "Objective", list(OBJECTIVE_LABELS), default=next(iter(OBJECTIVE_LABELS)), required=True,
        key="tune/objective", format_func=lambda name: OBJECTIVE_LABELS.get(name, name),
        width="stretch", persist_state="session",
        help="Speed is judged by the ratio to plain decoding on the same prompts, taken in turn: "
        "far less noisy than tokens per second alone.",
    )  # fmt: skip
    left, right = st.columns(2)
    trials = left.number_input(
        "Trials", 1, 10_000, 30, step=10, key="tune/trials", persist_state="session",
        help="In all. A study that was stopped goes on until there are so many.",
    )  # fmt: skip
    limit = right.number_input(
        "Prompts", 1, 10_000, 8, key="tune/limit", persist_state="session",
        help="The first so many of the workload. The best is measured again on as many new ones.",
    )  # fmt: skip
    return {
        "method": method,
        "workload": workload or "code",
        "objective": objective,
        "trials": int(trials),
        "limit": int(limit),
    }


def _space(method: str, *, shown: bool) -> dict[str, str]:
    """What is typed for each option. Describing options loads the method: only where looked at."""
    if not shown:
        kept = st.session_state.get("tune/typed", {})
        return kept.get(method, {})
    from workbench.tuning.space import derive

    st.caption("A range as 4..32, a list as [a,b], or one value that pins the option.")
    try:
        searched = {one.name: str(one) for one in derive(method)}
    except UserError as error:
        st.caption(escape_markdown(str(error)))
        searched = {}
    kept = st.session_state.setdefault("tune/typed", {}).setdefault(method, {})
    for info in describe(method):
        default = "on" if info.default is True else "off" if info.default is False else info.default
        kept[info.name] = st.text_input(
            info.name.replace("_", " ").capitalize(), kept.get(info.name, ""),
            key=f"tune/{method}/{info.name}", help=info.help,
            placeholder=searched.get(info.name, f"stays at {default}" if default != "" else "–"),
        )  # fmt: skip
    return dict(kept)


def _rest(fields: dict[str, Any]) -> dict[str, Any]:
    method = fields["method"]
    target = st.text_input(
        "Target", EMBEDDED_TARGET, key="tune/target", persist_state="session",
        help="Embedded name, local folder or hub id.",
    )  # fmt: skip
    draft = st.text_input(
        "Draft", EMBEDDED_DRAFT, key="tune/draft", persist_state="session",
        disabled=not METHODS[method].needs_draft, help="Empty: none.",
    )  # fmt: skip
    left, right = st.columns(2)
    dtype = left.selectbox("Dtype", get_args(Dtype), key="tune/dtype", persist_state="session")
    device = right.text_input("Device", "auto", key="tune/device", persist_state="session")
    execution = left.selectbox(
        "Execution", get_args(Execution), key="tune/execution", persist_state="session",
        help="Auto takes CUDA graphs on a GPU; on a CPU it waits for compiled forwards where they "
        "can be made: minutes, once.",
    )  # fmt: skip
    tokens = right.number_input(
        "New tokens", 1, 8192, 64, step=32, key="tune/tokens", persist_state="session",
        help="Every answer has exactly as many.",
    )  # fmt: skip
    repeats = left.number_input(
        "Repeats", 1, 100, 3, key="tune/repeats", persist_state="session",
        help="Times the best and the defaults are measured again.",
    )  # fmt: skip
    minutes = right.number_input(
        "Minutes", 0, 10_000, 0, step=5, key="tune/minutes", persist_state="session",
        help="Of searching at most. 0: as long as the trials take.",
    )  # fmt: skip
    temperature = st.slider(
        "Temperature", 0.0, 2.0, 0.0, 0.05, key="tune/temperature", help="0 is greedy.",
        persist_state="session",
    )  # fmt: skip
    name = st.text_input(
        "Name", placeholder=study_name(method, fields["workload"], fields["objective"]),
        key="tune/name", persist_state="session", help="The study is kept under this name.",
    )  # fmt: skip
    return {
        "target": target.strip(),
        "draft": draft.strip() or None,
        "dtypes": [dtype],
        "device": device.strip() or "auto",
        "executions": [execution],
        "max_new_tokens": int(tokens),
        "repeats": int(repeats),
        "timeout": 60.0 * minutes or None,
        "temperature": temperature,
        "name": name.strip(),
    }
