"""The form of the Compare page: methods, prompts and how often, the rest folded; then Measure."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from engine.errors import UserError
from engine.registry import method_names
from engine.tree import MOST_DRAFTS
from pages.parts.busy import other_job
from pages.parts.compare_editor import arm_editor
from pages.parts.compare_experiments import experiments_panel
from pages.parts.jobs import start_and_stop, start_job, stop_job
from pages.parts.ranks import ranks_form
from workbench.comparing.result import CompareSpec
from workbench.jobs import COMPARE, SWEEP
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, Dtype, Execution
from workbench.view.compare_form import (
    BASELINE_LABELS,
    PRESETS,
    SWEEP_PRESETS,
    build_compare,
    build_named_sweep,
    cost,
    sweep_name,
)
from workbench.view.forms import WORKLOAD_LABELS, escape_markdown
from workbench.view.runs_frame import stored_runs

ARMS = {False: "compare/arms", True: "sweep/arms"}


def compare_form(*, sweep: bool, active: bool) -> None:
    """Lay out the form and start what was asked for."""
    fields = _common(sweep=sweep)
    cost_place = st.container()
    pressed, cancelled = start_and_stop(
        "compare", start="Measure", icon=":material/speed:", stop="Cancel", kinds=(COMPARE, SWEEP),
        active=active,
    )  # fmt: skip
    other_job(COMPARE)
    if not sweep:
        experiments_panel(active=active)
    with st.expander("Add a method with options", icon=":material/tune:", key="compare/editor",
                     on_change="rerun") as editor:  # fmt: skip
        if editor.open:  # describing options loads the methods, which takes seconds the first time
            arm_editor(ARMS[sweep])
    with st.expander("Baselines, models and precision", icon=":material/settings:"):
        fields |= _rest(sweep=sweep)
    with st.expander("Several GPUs", icon=":material/memory:"):
        fields |= ranks_form("compare/", persist_state="session")
        st.caption("A method may say its own: `dynamic-tree:ranks=[1,2,4]`.")
    problem = None
    try:
        with cost_place:
            spec = _spec(fields, sweep=sweep)
            _say_cost(spec)
    except UserError as error:
        spec, problem = None, str(error)
        cost_place.caption(f":material/info: {escape_markdown(problem)}")
    if pressed:
        start_job("compare", spec, problem)
        st.rerun()
    if cancelled:
        stop_job("compare")
        st.rerun()


def _common(*, sweep: bool) -> dict[str, Any]:
    key, presets = ARMS[sweep], SWEEP_PRESETS if sweep else PRESETS
    if key not in st.session_state:
        st.session_state[key] = list(next(iter(presets.values())))
    offered = [name for name in method_names() if name != "autoregressive"]
    listed = [arm for arms in presets.values() for arm in arms]
    known = dict.fromkeys([*st.session_state[key], *offered, *listed])
    methods = st.multiselect(
        "Methods and options to sweep" if sweep else "Methods", list(known), key=key,
        accept_new_options=True, persist_state="session", wrap=True,
        placeholder="Choose, or type dynamic-tree:nodes=8",
        help="A method, or a method with options: `dynamic-tree:policy=eagle2,nodes=8`. A list "
        "stands for one method each: `dynamic-tree:nodes=[4,6,8]`. Plain decoding is always "
        "measured beside them.",
    )  # fmt: skip
    with st.container(horizontal=True, gap="small"):
        for name, arms in presets.items():
            st.button(
                name, key=f"preset/{name}", type="tertiary",
                on_click=_take, args=(key, arms),
            )  # fmt: skip
    added = st.session_state.get("compare/on", [])
    workloads = st.multiselect(
        "Workloads", list(dict.fromkeys([*WORKLOAD_LABELS, *added])),
        default=["code"], key="compare/on", accept_new_options=True, persist_state="session",
        format_func=lambda name: WORKLOAD_LABELS.get(name, name),
        help="Embedded ones, or the path of a file of prompts: JSON lines or text.",
    )  # fmt: skip
    left, right = st.columns(2)
    limit = left.number_input(
        "Prompts of each", 1, 10_000, 4, key="compare/limit", persist_state="session",
        help="The first so many. An interval needs at least two; a dozen make it narrow.",
    )  # fmt: skip
    tokens = right.number_input(
        "New tokens", 1, 8192, 64, step=32, key="compare/tokens", persist_state="session",
        help="Every arm makes exactly as many; the end of a text is ignored.",
    )  # fmt: skip
    repeats = left.number_input(
        "Repeats", 1, 100, 3, key="compare/repeats", persist_state="session",
        help="Times each prompt is decoded by each arm, in turn. Times are medians over them.",
    )  # fmt: skip
    fields = {
        "methods": methods,
        "workloads": workloads,
        "limit": int(limit),
        "max_new_tokens": int(tokens),
        "repeats": int(repeats),
    }
    if sweep:
        fields["name"] = st.text_input(
            "Name", placeholder=sweep_name(methods), key="sweep/name", persist_state="session",
            help="Kept under this name. Measuring it again goes on with the cells that are left.",
        )  # fmt: skip
        fields["name"] = fields["name"].strip() or sweep_name(methods)
    return fields


def _rest(*, sweep: bool) -> dict[str, Any]:
    baselines = st.multiselect(
        "Baselines", list(BASELINE_LABELS), key=f"compare/baselines/{sweep}",
        default=["hf-generate"] if sweep else ["hf-generate", "hf-assisted"],
        format_func=lambda name: BASELINE_LABELS.get(name, name), persist_state="session",
        help="Beside plain decoding by our own engine, which everything is measured against.",
    )  # fmt: skip
    target = st.text_input(
        "Target", EMBEDDED_TARGET, key="compare/target", persist_state="session",
        help="Embedded name, local folder or hub id.",
    )  # fmt: skip
    draft = st.text_input(
        "Draft", EMBEDDED_DRAFT, key="compare/draft", persist_state="session",
        help="Its vocabulary must be the target's. Empty: none.",
    )  # fmt: skip
    others = st.multiselect(
        "More draft models", [], key="compare/other_drafts", persist_state="session",
        accept_new_options=True, max_selections=MOST_DRAFTS - 1,
        placeholder="Type a folder or hub id",
        help="Methods that can merge the trees of all draft models into one; the others take the "
        "first. `static-tree:drafts=[1,2]` measures it with one and with two.",
    )  # fmt: skip
    dtypes = st.multiselect(
        "Dtypes", get_args(Dtype), default=["float32"], key="compare/dtypes",
        persist_state="session", help="Each is a comparison of its own, with its own baseline.",
    )  # fmt: skip
    caches = st.multiselect(
        "Key-value cache", [True, False], default=[True], key="compare/caches",
        persist_state="session", format_func=lambda on: "on" if on else "off",
        help="Off recomputes the prefix in every pass: it shows what caching buys. Each is a "
        "comparison of its own.",
    )  # fmt: skip
    left, right = st.columns(2)
    execution = left.selectbox(
        "Execution", get_args(Execution), key="compare/execution", persist_state="session",
        help="Auto takes CUDA graphs on a GPU; on a CPU it waits for compiled forwards where they "
        "can be made: minutes, once.",
    )  # fmt: skip
    device = right.text_input("Device", "auto", key="compare/device", persist_state="session")
    temperature = st.slider(
        "Temperature", 0.0, 2.0, 0.0, 0.05, key="compare/temperature", help="0 is greedy.",
        persist_state="session",
    )  # fmt: skip
    return {
        "baselines": baselines,
        "target": target.strip(),
        "draft": draft.strip() or None,
        "other_drafts": [name.strip() for name in others if name.strip()],
        "dtypes": dtypes,
        "caches": caches,
        "executions": [execution],
        "device": device.strip() or "auto",
        "temperature": temperature,
    }


def _spec(fields: dict[str, Any], *, sweep: bool) -> CompareSpec:
    if not sweep:
        return build_compare(fields)
    return build_named_sweep({k: v for k, v in fields.items() if k != "name"}, fields["name"])


def _take(key: str, arms: list[str]) -> None:
    st.session_state[key] = list(arms)


def _say_cost(spec: CompareSpec) -> None:
    prompts = sum(prompts_of(name, spec.limit) for name in spec.workloads)
    st.caption(cost(spec, prompts=prompts, pace=pace(spec)).sentence(spec))


@st.cache_data(show_spinner=False, ttl=60)
def prompts_of(workload: str, limit: int | None) -> int:
    """Turns of the first questions. Raises UserError."""
    from workbench.workloads import load_workload

    return sum(len(question.turns) for question in load_workload(workload, limit=limit))


def pace(spec: CompareSpec) -> float | None:
    """Tokens per second of the last plain run of this target."""
    for entry in stored_runs():
        known = entry.summary.get("tokens_per_second")
        if entry.method == "autoregressive" and entry.spec.get("target") == spec.target and known:
            return float(known)
    return None
