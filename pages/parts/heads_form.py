"""The form of a training: kind, target, text, budget; the rest folded."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.errors import UserError
from pages.parts.busy import other_job
from pages.parts.jobs import start_and_stop, start_job, stop_job
from pages.parts.models import known_models
from workbench import discovery
from workbench.jobs import TRAIN
from workbench.spec import EMBEDDED_TARGET
from workbench.training.spec import TrainSpec
from workbench.view.forms import WORKLOAD_LABELS, escape_markdown
from workbench.view.heads_form import (
    FILES,
    KIND_LABELS,
    LIBRARY,
    MINUTES,
    TOKENS,
    WORKLOAD,
    build_training,
    told,
    training_name,
)
from workbench.view.heads_options import Setting, describe_kind, describe_recipe
from workbench.view.heads_picture import EXPLAINED
from workbench.view.visible import safe_text


def heads_form(*, active: bool) -> None:
    """Lay out the form and start what was asked for."""
    fields = _common()
    told_place = st.container()
    pressed, stopped = start_and_stop(
        "heads", start="Train", icon=":material/model_training:", stop="Stop", kinds=(TRAIN,),
        active=active, help="The checkpoint is kept; it can go on.",
    )  # fmt: skip
    other_job(TRAIN)
    with st.expander("Advanced", icon=":material/settings:", key="heads/advanced",
                     on_change="rerun") as opened:  # fmt: skip
        fields |= _advanced(fields, shown=opened.open)
    spec, problem = None, None
    try:
        spec = build_training(fields)
        told_place.caption(escape_markdown(f"{told(spec)}."))
    except UserError as error:
        problem = str(error)
        told_place.caption(f":material/info: {escape_markdown(problem)}")
    if pressed:
        start_training(spec, problem)
        st.session_state["part"] = "training"
        st.rerun()
    if stopped:
        stop_job("heads")
        st.rerun()


def start_training(spec: TrainSpec | None, problem: str | None = None) -> None:
    """Start a training or go on with one, or keep the sentence that says why not."""
    if start_job("heads", spec, problem) and spec is not None:
        st.query_params["training"] = spec.name


def _common() -> dict[str, Any]:
    kind = st.segmented_control(
        "Kind", list(KIND_LABELS), default="medusa", required=True, key="heads/kind",
        format_func=lambda name: KIND_LABELS.get(name, name), width="stretch",
        persist_state="session",
    )  # fmt: skip
    st.caption(EXPLAINED[kind].text)
    labels = {model.name: safe_text(discovery.label(model)) for model in known_models()}
    target = st.selectbox(
        "Target", list(labels), key="heads/target", persist_state="session",
        index=list(labels).index(EMBEDDED_TARGET) if EMBEDDED_TARGET in labels else None,
        accept_new_options=True, format_func=lambda name: labels.get(name, safe_text(str(name))),
        placeholder="Choose, or type a folder or hub id",
        help="A head fits the very weights it was trained on, and no others.",
    )  # fmt: skip
    source = st.segmented_control(
        "Text", [LIBRARY, FILES, WORKLOAD], default=LIBRARY, required=True, key="heads/source",
        width="stretch", persist_state="session",
    )  # fmt: skip
    fields: dict[str, Any] = {
        "kind": kind, "target": (target or "").strip(), "source": source, "texts": [],
        "workload": None, "minutes": None, "tokens": None,
    }  # fmt: skip
    if source == FILES:
        named = st.text_area(
            "Files or folders", key="heads/texts", persist_state="session", height=80,
            placeholder="One a line", help="UTF-8 text. Some of it is held out to judge by.",
        )  # fmt: skip
        fields["texts"] = [line.strip() for line in named.splitlines() if line.strip()]
    elif source == WORKLOAD:
        fields["workload"] = st.selectbox(
            "Workload", list(WORKLOAD_LABELS), key="heads/on", accept_new_options=True,
            persist_state="session", format_func=lambda name: WORKLOAD_LABELS.get(name, name),
            help="An embedded one, or the path of a file of prompts.",
        )  # fmt: skip
    else:
        st.caption("The sources that every Python carries, a few files held out to judge by.")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    fields["budget"] = left.segmented_control(
        "Budget", [MINUTES, TOKENS], default=MINUTES, required=True, key="heads/budget",
        width="stretch", persist_state="session",
        help="Minutes end on time on any machine; tokens give the same weights again.",
    )  # fmt: skip
    if fields["budget"] == MINUTES:
        fields["minutes"] = right.number_input(
            "Minutes", 0.1, 10_000.0, 10.0, step=5.0, format="%g", key="heads/minutes",
            persist_state="session", label_visibility="collapsed",
        )  # fmt: skip
    else:
        fields["tokens"] = int(right.number_input(
            "Tokens", 1_000, 10_000_000_000, 2_000_000, step=1_000_000, key="heads/tokens",
            persist_state="session", label_visibility="collapsed",
        ))  # fmt: skip
    return fields


def _advanced(fields: dict[str, Any], *, shown: bool) -> dict[str, Any]:
    """Name, precision, sizes. Describing what a kind takes loads it: only where looked at."""
    kept = st.session_state.setdefault(
        "heads/kept",
        {"name": "", "dtype": "float32", "device": "auto", "seed": 0, "threads": None,
         "written": 200_000, "recipe": {}, "options": {}},
    )  # fmt: skip
    if not shown:
        return _chosen(kept, fields["kind"])
    kept["name"] = st.text_input(
        "Name", kept["name"], key="heads/name",
        placeholder=training_name(fields["kind"], fields["target"] or "head"),
        help="It is kept under this name; a name that is taken goes on with that training.",
    ).strip()  # fmt: skip
    left, right = st.columns(2)
    formats = ["float32", "bfloat16"]
    kept["dtype"] = left.selectbox(
        "Passes in", formats, index=formats.index(kept["dtype"]), key="heads/dtype",
        help="Weights that are trained stay float32.",
    )  # fmt: skip
    kept["device"] = (
        right.text_input("Device", kept["device"], key="heads/device").strip() or "auto"
    )
    kept["seed"] = int(left.number_input("Seed", 0, 2**31, kept["seed"], key="heads/seed"))
    threads = right.number_input(
        "Threads", 0, 1024, kept["threads"] or 0, key="heads/threads", help="0: all cores."
    )
    kept["threads"] = int(threads) or None
    kept["written"] = int(st.number_input(
        "Tokens the target writes", 0, 10**9, kept["written"], step=50_000, key="heads/written",
        help="Before training; half of what is read then is its own text. 0: none.",
    ))  # fmt: skip
    st.caption("Of the training")
    kept["recipe"] = _fields(describe_recipe(), "recipe", kept["recipe"])
    st.caption(f"Of {KIND_LABELS[fields['kind']]}")
    options = _fields(describe_kind(fields["kind"]), fields["kind"],
                      kept["options"].get(fields["kind"], {}))  # fmt: skip
    kept["options"] = kept["options"] | {fields["kind"]: options}
    return _chosen(kept, fields["kind"])


def _chosen(kept: dict[str, Any], kind: str) -> dict[str, Any]:
    return kept | {"options": kept["options"].get(kind, {})}


def _fields(described: dict[str, Setting], where: str, kept: dict[str, Any]) -> dict[str, Any]:
    """A field for each setting; those left as usual are not given."""
    given: dict[str, Any] = {}
    places: list[Any] = []
    for name, one in described.items():
        common: dict[str, Any] = {"key": f"heads/{where}/{name}", "help": one.help or None}
        now = kept.get(name, one.usual)
        if isinstance(one.usual, bool):
            value: Any = st.toggle(one.label, now, **common)
        else:
            places = places or list(st.columns(2, vertical_alignment="bottom"))
            place = places.pop(0)
            if one.choices:
                value = place.selectbox(one.label, one.choices, index=one.choices.index(now),
                                        **common)  # fmt: skip
            elif isinstance(one.usual, int | float):
                whole = isinstance(one.usual, int)
                value = place.number_input(
                    one.label, value=now, format="%d" if whole else "%g",
                    min_value=(1 if one.usual else 0) if whole else 0.0, **common,
                )  # fmt: skip
            else:
                value = place.text_input(one.label, str(now), **common)
        if value != one.usual:
            given[name] = value
    return given
