"""A stored study, or the one under way: verdict, what to do with it, charts and trials."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import UserError
from pages.parts.charts import show_figure, theme
from pages.parts.compare_result import verdict
from pages.parts.named import pick_named
from pages.parts.run_spec import TO_RUN
from pages.parts.settings import handle, settings
from pages.parts.tune_form import start_study
from workbench.figures.tuning import by_option, speed_against_acceptance, trials_over_time
from workbench.jobs import TUNE
from workbench.tuning import wording
from workbench.tuning.spec import TuneSpec
from workbench.tuning.study import Study, load_study, study_names
from workbench.view.forms import escape_markdown
from workbench.view.tune_study import (
    OPTION,
    changed_at,
    is_speed,
    objective,
    searched,
    spec_file,
    trial_frame,
)

_ABREAST = """<style>
.st-key-tune-trials > [data-testid=stLayoutWrapper] {
  flex: 1 1 400px; max-width: 100%; align-self: stretch;
}
.st-key-tune-trials > [data-testid=stLayoutWrapper] > div { height: 100%; }
.st-key-tune-options > [data-testid=stLayoutWrapper] { flex: 1 1 230px; max-width: 420px; }
</style>"""
_NOTHING = (
    "Press **Tune** on the left: the options of the method are searched on your prompts, each "
    "trial in turn with plain decoding. The best is measured again beside the defaults, and can "
    "be taken to the Run page or as a file."
)
_RUN = Path(__file__).resolve().parents[1] / "run.py"
_COMPARE = Path(__file__).resolve().parents[1] / "compare.py"


def studies_view(
    *, active: bool, methods: Collection[str] | None = None, otherwise: str = _NOTHING
) -> None:
    """Choose a study; see it grow or as it ended. The address bar names it: `?study=`.

    Only those of `methods` where they are given; `otherwise` is said where there is none.
    """
    names = [name for name in study_names() if methods is None or _method_of(name) in methods]
    snapshot = handle().snapshot()
    spec = snapshot.measuring.spec
    tuning = active and snapshot.kind == TUNE and isinstance(spec, TuneSpec)
    running = spec.name if tuning and isinstance(spec, TuneSpec) else ""
    coming = bool(running) and running not in names
    if coming:
        st.fragment(_wait_for, run_every=settings.refresh_s)(running)
    if not names:
        _nothing_yet(otherwise, active=bool(running))
        return
    chosen = pick_named("Study", names, page="tune", active=active, coming=coming)
    grows = chosen == running
    st.fragment(_draw, run_every=4 * settings.refresh_s if grows else None)(chosen, active)


def _method_of(name: str) -> str:
    try:
        return _read(name, changed_at(name)).spec.method
    except UserError:  # damaged; told of where it is chosen
        return ""


def _wait_for(name: str) -> None:
    """The page is drawn anew once a study that has just been started is stored."""
    try:
        load_study(name)
    except UserError:  # not there yet
        return
    st.rerun()


def _draw(name: str, active: bool) -> None:
    try:
        study = _read(name, changed_at(name))
        said = wording.verdict(study)
        wording.best_spec(study)  # its method or options may be gone
    except UserError as error:
        st.error(escape_markdown(str(error)), icon=":material/error:")
        return
    verdict(said, tone=wording.tone(study))
    _state(study, active=active)
    _take_along(study)
    if not study.trials:
        return
    frame = trial_frame(study)
    st.html(_ABREAST)
    with st.container(horizontal=True, key="tune-trials"):
        _trials(frame, study)
    if len(study.trials) > 1 and (options := searched(study)):
        with st.container(border=True):
            st.markdown("**By option**")
            st.caption(escape_markdown(_mattered(name, changed_at(name))))
            _options(frame, options, study)
    with st.expander("All trials", icon=":material/table_rows:"):
        _table(frame, study)


def _state(study: Study, *, active: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        facts = [wording.state_told(study), wording.lossless_told(study)]
        if study.status not in ("finished", "running"):
            facts.insert(1, study.status)
        st.caption(escape_markdown(f"{'; '.join(facts)}."), width="content")
        left = study.left or wording.confirmation(study) is None
        if left and not active and st.button(
            "Go on", icon=":material/play_arrow:", key="tune/go-on", type="tertiary",
            help="Makes the trials that are left, then measures the best again.",
        ):  # fmt: skip
            start_study(study.spec, go_on=True)
            st.rerun()  # all of the page: this is drawn within a fragment
    for note in study.notes:
        st.caption(f":material/info: {escape_markdown(note)}")


def _take_along(study: Study) -> None:
    text = spec_file(study)
    if not text:
        return
    again = wording.confirmation(study)
    with st.container(horizontal=True):
        if st.button("Use it on the Run page", icon=":material/play_circle:", key="tune/use"):
            st.session_state[TO_RUN] = text
            st.switch_page(st.Page(_RUN))
        st.download_button(
            "Spec as JSON", text, file_name=f"{study.spec.name}.spec.json",
            mime="application/json", icon=":material/download:", on_click="ignore",
            help="draftree run --spec FILE takes it.",
        )  # fmt: skip
        if again is not None and st.button(
            "The last measurement", icon=":material/compare_arrows:", type="tertiary",
            key="tune/comparison",
            help="Plain decoding, the defaults and the best in turn, with repeats.",
        ):  # fmt: skip
            st.switch_page(st.Page(_COMPARE), query_params={"comparison": again.comparison})


def _trials(frame: pd.DataFrame, study: Study) -> None:
    """The search as it went and, where speed was judged, what acceptance was worth."""
    name = study.spec.name
    with st.container(border=True, key="tune-trials-time"):
        st.markdown("**Trials and the best so far**")
        st.caption(_reading(study))
        drawn = trials_over_time(
            frame, speed=is_speed(study), objective=objective(study), theme=theme()
        )
        show_figure(drawn, key=f"{name}/trials")
    if not is_speed(study):
        return
    with st.container(border=True, key="tune-trials-acceptance"):
        st.markdown("**Speed against acceptance**")
        st.caption("Far right and not high: its tokens cost more drafting than they saved.")
        show_figure(speed_against_acceptance(frame, theme=theme()), key=f"{name}/acceptance")


def _options(frame: pd.DataFrame, options: list[str], study: Study) -> None:
    """A small figure for each option, as many abreast as there is room for."""
    with st.container(horizontal=True, key="tune-options"):
        for name in options:
            with st.container(key=f"tune-option-{name}"):
                drawn = by_option(
                    frame, name, speed=is_speed(study), objective=objective(study), theme=theme()
                )
                show_figure(drawn, key=f"{study.spec.name}/option/{name}")


def _reading(study: Study) -> str:
    if is_speed(study):
        return (
            "Each trial beside plain decoding on the same prompts. A cross was broken off: behind "
            "most others after a few prompts."
        )
    return "A cross was broken off: behind most others after a few prompts."


@st.cache_data(show_spinner=False, max_entries=16)
def _mattered(name: str, changed: tuple[int, int]) -> str:
    shares = wording.importance(load_study(name))
    if not shares:
        return "The objective over the values of each option."
    told = ", ".join(
        f"{one.replace('_', ' ')} {100 * share:.0f} %" for one, share in shares.items()
    )
    return f"What mattered among the measured trials (PED-ANOVA): {told}."


def _table(frame: pd.DataFrame, study: Study) -> None:
    best = next((trial.number for trial in study.trials if trial is study.best), None)
    columns: dict[str, Any] = {
        "trial": st.column_config.NumberColumn("Trial", pinned=True),
        "state": st.column_config.TextColumn("State"),
        "value": st.column_config.NumberColumn(
            objective(study).capitalize(),
            format="%.2f×" if is_speed(study) else "%.2f",
        ),
        "low": st.column_config.NumberColumn("95 % from", format="%.2f×"),
        "high": st.column_config.NumberColumn("to", format="%.2f×"),
        "tokens_per_step": st.column_config.NumberColumn("Tokens/step", format="%.2f"),
        "tokens_per_second": st.column_config.NumberColumn("Tokens/s", format="%.1f"),
        "acceptance_rate": st.column_config.NumberColumn("Accepted", format="percent"),
        "prompts": st.column_config.NumberColumn("Prompts"),
        "lossless": st.column_config.TextColumn("Lossless"),
        "why": st.column_config.TextColumn("Why"),
        "best_so_far": None,
        "best": None,
        "told": None,
    }
    options = [name for name in frame if str(name).startswith(OPTION)]
    columns |= {
        str(name): st.column_config.Column(str(name).removeprefix(OPTION).replace("_", " "))
        for name in options
    }
    order = ["trial", "state", "value", "low", "high", *options]
    order += [name for name in frame if name not in order]
    if not is_speed(study):
        columns |= {"low": None, "high": None}
    st.dataframe(
        frame[order], hide_index=True, column_config=columns, placeholder="–",
        alt="Trials of the study",
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "All trials as CSV", lambda: frame.drop(columns=["best", "told"]).to_csv(index=False),
            file_name=f"{study.spec.name}.csv", mime="text/csv", icon=":material/download:",
            on_click="ignore",
        )  # fmt: skip
        if best is not None:
            st.caption(f"Trial {best} is the best.")


@st.cache_resource(show_spinner=False, max_entries=8)
def _read(name: str, changed: tuple[int, int]) -> Study:
    """`changed` is part of the key: a journal that has grown is read anew."""
    return load_study(name)


def _nothing_yet(otherwise: str, *, active: bool) -> None:
    with st.container(border=True):
        if active:
            st.markdown("**The trials will stand here**")
            st.caption("The first study is under way; no trial has ended yet.")
            return
        st.markdown("**No study is stored yet**")
        st.markdown(otherwise)
