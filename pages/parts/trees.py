"""Parts of the Trees page: whose ranks, how much is known of them, the editor, and the real run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import streamlit as st

from engine.errors import UserError
from engine.shapes import from_paths
from engine.tree import Children
from pages.parts.settings import handle, settings
from workbench.snapshot import Snapshot
from workbench.view import editor as making
from workbench.view.forms import escape_markdown
from workbench.view.runs_frame import stored_runs
from workbench.view.trial import Trial, figures, trial_spec
from workbench.whatif.cache import completed_at
from workbench.whatif.child import Completion

_KEY, _TRIAL = "tree-editor", "trees/trial"
_WORDS = {
    Children.FIXED: "Fixed",
    Children.COUPLED: "Coupled",
}


def _read(*names: str) -> str:
    folder = files("workbench.view")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


_EDITOR = st.components.v2.component(
    "draftree_tree_editor",
    html=_read("editor_component/editor.html"),
    css=_read("tree_component/live.css", "editor_component/editor.css"),
    js=_read(
        "tree_component/mount.js", "tree_component/tree.js",
        "editor_component/walk.js", "editor_component/editor.js"
    ),
)  # fmt: skip


@dataclass(slots=True)
class _Completions:
    """The one completion under way in this process."""

    job: Completion | None = None


@st.cache_resource(show_spinner=False)
def _completions() -> _Completions:
    return _Completions()


@st.cache_data(show_spinner="Reading the run", max_entries=8)
def _cached(run_id: str, children: Children, completed: float, newest: str) -> dict[str, Any]:
    return making.editor_payload(run_id, children=children)


def _payload(run_id: str, children: Children) -> dict[str, Any]:
    """What the editor gets; made again when ranks were measured or another run tells times."""
    ended = (entry.run_id for entry in stored_runs() if entry.pid is None)
    return _cached(run_id, children, completed_at(run_id), next(ended, ""))


def children_choice(run_id: str) -> Children:
    """For which children to ask; a choice only where the run sampled."""
    try:
        _, kinds = making.kinds(run_id)
    except UserError:
        return Children.FIXED  # the editor says what is wrong
    if len(kinds) == 1:
        return kinds[0]
    return st.segmented_control(
        "Children", kinds, default=kinds[0], required=True, key="trees/children",
        format_func=lambda kind: _WORDS[kind],
        help="Fixed children are ranked by the draft's probability alone, coupled ones with the "
        "noise that the target will use at that position. Each has ranks of its own.",
    )  # fmt: skip


def completion(run_id: str, children: Children) -> None:
    """How much is known, with a button to measure the rest; its progress while it works."""
    job = _completions().job
    active = job is not None and job.run_id == run_id and job.progress.active
    tick = st.fragment(_completion, run_every=settings.refresh_s if active else None)
    tick(run_id, children, active)


def _completion(run_id: str, children: Children, was_active: bool) -> None:
    job = _completions().job
    mine = job if job is not None and job.run_id == run_id else None
    progress = mine.progress if mine else None
    if progress is not None and progress.active != was_active:
        st.rerun()
    with st.container():
        if progress is not None and progress.active:
            bar, button = st.columns([6, 1], vertical_alignment="center")
            bar.progress(progress.share, text=escape_markdown(progress.message))
            if button.button("Cancel", icon=":material/stop:", key="trees/cancel", width="stretch"):
                mine.cancel()
                st.rerun()
            return
        if progress is not None and progress.error:
            st.error(escape_markdown(progress.error), icon=":material/error:")
        _say_known(run_id, children)


def _say_known(run_id: str, children: Children) -> None:
    try:
        payload = _payload(run_id, children)
    except UserError:
        return  # the editor says what is wrong
    if payload["known"] == payload["tokens"]:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"The draft's rank is known for {payload['known']} of {payload['tokens']} tokens: "
            "figures are bounds. Running the draft model over the text once makes them exact.",
            width="stretch",
        )
        if st.button("Make exact", icon=":material/done_all:", key="trees/complete"):
            _completions().job = Completion(run_id)
            st.rerun()


def editor(run_id: str, children: Children) -> None:
    """The editor of trees on this run's ranks."""
    try:
        payload = _payload(run_id, children)
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    _EDITOR(
        data=payload | {"view": _KEY, "busy": handle().active}, key=_KEY,
        on_run_change=lambda: _start(run_id, children), on_open_change=_open,
    )  # fmt: skip


def _start(run_id: str, children: Children) -> None:
    asked = dict(st.session_state[_KEY].get("run") or {})
    try:
        shape = from_paths(str(asked.get("paths", "")))
        predicted = making.prediction(run_id, shape, children=children)
        spec = trial_spec(run_id, shape, children)
        handle().start(spec)
    except UserError as error:
        st.session_state[f"{_TRIAL}/{run_id}"] = str(error)
        return
    st.session_state[f"{_TRIAL}/{run_id}"] = Trial(spec, predicted)


def _open() -> None:
    asked = dict(st.session_state[_KEY].get("open") or {})
    st.session_state["trees/open"] = asked


def outcome(run_id: str) -> None:
    """The real run beside what was predicted, while it goes on and after."""
    if asked := st.session_state.pop("trees/open", None):
        _to_replay(run_id, **{name: str(int(asked[name])) for name in ("request", "step")})
    trial = st.session_state.get(f"{_TRIAL}/{run_id}")
    if isinstance(trial, str):
        st.error(escape_markdown(trial), title="The run was not started", icon=":material/error:")
    elif trial is not None:
        active = handle().active
        tick = st.fragment(_outcome, run_every=settings.refresh_s if active else None)
        tick(trial, active)


def _outcome(trial: Trial, was_active: bool) -> None:
    busy = handle().active
    snapshot: Snapshot = handle().snapshot()
    if busy != was_active:
        st.rerun()
    if snapshot.spec == trial.spec:
        trial.take(snapshot)
    with st.container(border=True):
        st.markdown("**Predicted and measured**")
        if trial.error:
            st.error(escape_markdown(trial.error), icon=":material/error:")
        st.dataframe(figures(trial), hide_index=True, width="stretch", alt=trial.words)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(escape_markdown(trial.words), width="stretch")
            if busy and snapshot.spec == trial.spec:
                if st.button("Stop", icon=":material/stop:", key="trees/stop"):
                    handle().stop()
            elif trial.run_id and st.button(
                "Open in Replay", icon=":material/history:", key="trees/replay"
            ):
                _to_replay(trial.run_id)


def _to_replay(run_id: str, **where: str) -> None:
    page = Path(__file__).resolve().parent.parent / "replay.py"
    st.switch_page(str(page), query_params={"run": run_id} | where)
