"""The form of the Run page: common choices first, the rest folded."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from engine.errors import UserError
from engine.options import OptionInfo
from engine.registry import METHODS, describe, method_names
from engine.verify_paths import TYPICAL
from pages.parts.models import choose_pair
from pages.parts.ranks import ranks_form
from workbench.spec import (
    ChildrenChoice,
    Dtype,
    Execution,
    RunSpec,
    Verify,
)
from workbench.view.forms import WORKLOAD_LABELS, Prompt, build_spec, changed_options, gallery
from workbench.view.live import Handle

_OWN = "own"


@st.cache_data(show_spinner=False)
def _gallery(workload: str) -> list[Prompt]:
    return gallery(workload)


def run_form() -> dict[str, Any]:
    """Common choices; the fields of a spec."""
    fields: dict[str, Any] = {}
    pair = st.container()  # what is said of a pair depends on the method chosen below it
    fields["method"] = st.selectbox(
        "Method", method_names(), index=method_names().index("dynamic-tree"), key="method"
    )
    with pair:
        fields |= choose_pair(fields["method"])
    st.caption(METHODS[fields["method"]].summary)
    fields["prompt"] = _prompt()
    fields["max_new_tokens"] = st.number_input(
        "New tokens", min_value=1, max_value=8192, value=128, step=32, key="max_new_tokens",
        help="The run ends after exactly this many, or earlier at the end of the text.",
    )  # fmt: skip
    return fields


def folded_form(method: str) -> dict[str, Any]:
    """The method's own options, then sampling and precision."""
    with st.expander("Method options", icon=":material/tune:"):
        options = _options(method)
    with st.expander("Sampling and precision", icon=":material/casino:"):
        rest = _sampling() | _precision()
    with st.expander("Several GPUs", icon=":material/memory:"):
        return {"options": options} | rest | ranks_form()


def start(handle: Handle, fields: dict[str, Any]) -> None:
    """Start a run, or keep the sentence that says why not."""
    st.session_state["problem"], st.session_state["stopping"] = None, False
    try:
        spec: RunSpec = build_spec(**fields)
        handle.start(spec)
    except UserError as error:
        st.session_state["problem"] = str(error)


def stop(handle: Handle) -> None:
    """Ask the run under way to end, and say so until it has."""
    st.session_state["stopping"] = True
    handle.stop()


def _prompt() -> str:
    sources = [*WORKLOAD_LABELS, _OWN]
    source = st.segmented_control(
        "Prompt", sources, default="code", required=True, key="source", width="stretch",
        format_func=lambda name: WORKLOAD_LABELS.get(name, "Own"),
    )  # fmt: skip
    if source == _OWN:
        return st.text_area(
            "Own prompt", height=150, label_visibility="collapsed", key="own_prompt",
            placeholder="Type or paste the text to continue",
        )  # fmt: skip
    try:
        prompts = _gallery(source)
    except UserError as error:
        st.warning(str(error))
        return ""
    chosen = st.selectbox(
        "Gallery", prompts, label_visibility="collapsed", key=f"prompt_{source}",
        format_func=lambda prompt: prompt.preview,
    )  # fmt: skip
    return chosen.text if chosen else ""


def _options(method: str) -> dict[str, Any]:
    infos = describe(method)
    if not infos:
        st.caption("This method has no options.")
    values: dict[str, Any] = {}
    pair: list[Any] = []
    for info in infos:  # numbers stand two abreast, words take a line
        if not info.matters(values):
            continue
        if info.choices or info.type == "str":
            pair = []
            values[info.name] = _field(st, method, info)
        else:
            pair = pair or list(st.columns(2, vertical_alignment="bottom"))
            values[info.name] = _field(pair.pop(0), method, info)
    return changed_options(infos, values)


def _field(place: Any, method: str, info: OptionInfo) -> Any:
    label = info.name.replace("_", " ").capitalize()
    common: dict[str, Any] = {"help": info.help, "key": f"{method}/{info.name}"}
    if info.choices:
        return place.selectbox(
            label, info.choices, index=info.choices.index(info.default), **common
        )
    if info.type == "bool":
        return place.toggle(label, value=info.default, **common)
    if info.type in ("int", "float"):
        kind = int if info.type == "int" else float
        return place.number_input(
            label, value=info.default, step=1 if kind is int else 0.05,
            min_value=None if info.min is None else kind(info.min),
            max_value=None if info.max is None else kind(info.max), **common,
        )  # fmt: skip
    return place.text_input(label, value=info.default or "", **common)


def _sampling() -> dict[str, Any]:
    temperature = st.slider(
        "Temperature", 0.0, 2.0, 0.0, 0.05, key="temperature", help="0 is greedy."
    )
    greedy = temperature == 0.0
    left, right = st.columns(2)
    fields = {
        "temperature": temperature,
        "top_k": left.number_input(
            "Top-k", 0, 100_000, 0, key="top_k", disabled=greedy, help="0 is off."
        ),
        "top_p": right.number_input(
            "Top-p", 0.01, 1.0, 1.0, 0.05, key="top_p", disabled=greedy, help="1 is off."
        ),
        "seed": st.number_input("Seed", 0, 2**31, 0, key="seed", help="Keys all randomness."),
        "verify": st.selectbox(
            "Verification", get_args(Verify), key="verify", disabled=greedy,
            help="All but typical are lossless; match also repeats plain sampling token for token.",
        ),
        "children": st.selectbox(
            "Children", get_args(ChildrenChoice), key="children", disabled=greedy,
            help="How the tree's children are chosen. Auto takes what suits the method.",
        ),
    }  # fmt: skip
    if not greedy and fields["verify"] == "typical":
        left, right = st.columns(2)
        fields |= {
            "typical_epsilon": left.number_input(
                "Epsilon", 0.01, 1.0, TYPICAL.epsilon, 0.01, key="typical_epsilon",
                help="Takes a token that is likelier than this, or than alpha exp(-entropy).",
            ),
            "typical_alpha": right.number_input(
                "Alpha", 0.01, 1.0, TYPICAL.alpha, 0.05, key="typical_alpha",
                help="Less where the target itself is unsure.",
            ),
        }  # fmt: skip
    return fields


def _precision() -> dict[str, Any]:
    left, right = st.columns(2)
    return {
        "dtype": left.selectbox("Dtype", get_args(Dtype), key="dtype"),
        "device": right.text_input("Device", value="auto", key="device", help="cpu, cuda or auto"),
        "execution": st.selectbox(
            "Execution", get_args(Execution), key="execution",
            help="Auto takes CUDA graphs on a GPU, compiled forwards where they are at hand on a "
            "CPU, and runs eager otherwise. Compiled (CPU) makes them first, once for each model: "
            "a few minutes. Graph needs a CUDA device. Inductor compiles anew in every run.",
        ),
        "cache": st.toggle(
            "Key-value cache", value=True, key="cache",
            help="Off recomputes the prefix in every pass: it shows what caching buys.",
        ),
    }  # fmt: skip
