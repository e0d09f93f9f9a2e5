"""A training under way or stored: how it stands, its curves, going on with it, the way to Run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from engine.training.heads_log import HeadRun
from pages.parts.charts import show_figure, theme
from pages.parts.heads_cards import open_on_run_page
from pages.parts.heads_form import start_training
from pages.parts.models import known_models
from pages.parts.named import pick_named
from pages.parts.settings import handle, settings
from workbench.figures.heads import accuracy_curves, loss_curve
from workbench.jobs import TRAIN
from workbench.view import heads_runs
from workbench.view.forms import escape_markdown
from workbench.view.heads_cards import head_of
from workbench.view.heads_form import going_on, small_training
from workbench.view.heads_picture import EXPLAINED, picture

_ABREAST = """<style>
.st-key-heads-tiles > div { flex: 1 1 185px; }
.st-key-heads-curves > [data-testid=stLayoutWrapper] { flex: 1 1 400px; max-width: 100%; }
.st-key-heads-kinds {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 100%), 1fr));
}
.st-key-heads-kinds > [data-testid=stLayoutWrapper] > div { height: 100%; }
</style>"""
_RANKS = {"top1": "First guess", "top5": "First five"}
_TEXTS = {"held_out": "Text held out", "written": "The target's own text"}


def trainings_view(*, active: bool) -> None:
    """Choose a training; see it learn or as it ended. The address bar names it: `?training=`."""
    found = heads_runs.trainings()
    snapshot = handle().snapshot()
    running = snapshot.measuring.result if active and snapshot.kind == TRAIN else ""
    names = heads_runs.names(found)
    coming = active and snapshot.kind == TRAIN and running not in names
    if coming:
        st.fragment(_wait_for, run_every=2 * settings.refresh_s)(tuple(names))
    if not found:
        _nothing_yet(active=active, starting=active and snapshot.kind == TRAIN)
        return
    chosen = pick_named(
        "Training", names, page="heads", active=active, coming=coming,
        told=lambda name: heads_runs.label(name, names[name]),
    )  # fmt: skip
    run = names[chosen]
    grows = heads_runs.state(run) == "running"
    st.fragment(_draw, run_every=4 * settings.refresh_s if grows else None)(
        str(run.folder), active, grows, chosen == running
    )


def _wait_for(known: tuple[str, ...]) -> None:
    """The page is drawn anew once the training that was just started has begun its log."""
    if set(heads_runs.names(heads_runs.trainings())) - set(known):
        st.rerun()


def _draw(folder: str, active: bool, grew: bool, ours: bool) -> None:
    run = _read(folder, heads_runs.changed_at(Path(folder)))
    if run is None:
        st.warning("The log of this training is gone.", icon=":material/warning:")
        return
    now = heads_runs.state(run)
    if (now == "running") != grew:
        st.rerun()  # the buttons and the tick change with it
    _state(run, now, active=active, ours=ours)
    _tiles(run)
    _curves(run, folder)
    with st.expander("How it was started", icon=":material/terminal:"):
        st.code(str(run.start.get("command") or "-"), language=None, wrap_lines=True)
        st.caption(escape_markdown(f"Its log and checkpoint are kept in {run.folder.resolve()}."))


def _state(run: HeadRun, now: str, *, active: bool, ours: bool) -> None:
    told = escape_markdown(heads_runs.state_told(run))
    if now in ("failed", "killed"):
        st.error(told, icon=":material/error:")
    with st.container(horizontal=True, vertical_alignment="center"):
        if now not in ("failed", "killed"):
            st.caption(told, width="content")
        if now == "running" and not ours:
            st.caption(f"Started elsewhere, as process {int(run.start.get('pid', 0))}; stop it "
                       "there, from a terminal with Ctrl-C.", width="content")  # fmt: skip
        head = head_of(run, known_models())
        if head is not None and now != "running" and st.button(
            "Try it", icon=":material/play_circle:", key="heads/try", disabled=bool(head.problem),
            help=escape_markdown(head.problem) or "Opens the Run page with this head.",
        ):  # fmt: skip
            open_on_run_page(head)
        if now in ("stopped", "failed", "killed"):
            _go_on(run, active=active)


def _go_on(run: HeadRun, *, active: bool) -> None:
    spec = going_on(run.folder)
    if spec is None:
        st.caption("It was started from a terminal: the same command goes on with it.",
                   width="content")  # fmt: skip
    elif st.button(
        "Go on", icon=":material/play_arrow:", key="heads/go-on", disabled=active,
        help="From the last checkpoint, with the budget that is left.",
    ):  # fmt: skip
        start_training(spec)
        st.rerun()  # all of the page: this is drawn within a fragment


def _tiles(run: HeadRun) -> None:
    figures = heads_runs.figures(run)
    tile: dict[str, Any] = {"border": True, "height": "stretch"}
    with st.container(horizontal=True, key="heads-tiles"):
        st.metric("Loss, nats", figures.loss, **tile)
        st.metric(
            f"First guess right at +{figures.offset}", figures.first, figures.over_ngram,
            help="On held-out text, and by how much it is over an n-gram of the same text.", **tile,
        )  # fmt: skip
        st.metric("Tokens read", figures.tokens, **tile)
        st.metric("Tokens per second", figures.rate, **tile)


def _curves(run: HeadRun, folder: str) -> None:
    st.html(_ABREAST)
    texts = [name for name in _TEXTS if len(heads_runs.accuracy_frame(run, name))]
    with st.container(horizontal=True, horizontal_alignment="right"):
        text = "held_out"
        if len(texts) > 1:
            text = st.segmented_control(
                "Judged on", texts, default="held_out", required=True, key="heads/judged",
                format_func=lambda name: _TEXTS[name], label_visibility="collapsed",
            )  # fmt: skip
        rank = st.segmented_control(
            "Right is", list(_RANKS), default="top1", required=True, key="heads/rank",
            format_func=lambda name: _RANKS[name], label_visibility="collapsed",
        )  # fmt: skip
    with st.container(horizontal=True, key="heads-curves"):
        with st.container(border=True, key="heads-loss"):
            st.markdown("**Loss**")
            st.caption("A running mean over the steps, and the mean over text held out.")
            drawn = loss_curve(
                heads_runs.loss_frame(run), heads_runs.held_out_loss_frame(run), theme=theme()
            )
            show_figure(drawn, key=f"{folder}/loss")
        with st.container(border=True, key="heads-accuracy"):
            st.markdown(f"**{_RANKS[rank]} right, by offset**")
            st.caption(
                "+2 is the token after the next one. Dotted: an n-gram that has counted the same "
                "text." if text == "held_out" else
                "+2 is the token after the next one; the target wrote the text greedily."
            )  # fmt: skip
            drawn = accuracy_curves(
                heads_runs.accuracy_frame(run, text),
                heads_runs.ngram_shares(run, rank) if text == "held_out" else {},
                rank=rank, theme=theme(),
            )  # fmt: skip
            show_figure(drawn, key=f"{folder}/accuracy")


@st.cache_resource(show_spinner=False, max_entries=8)
def _read(folder: str, changed: tuple[int, int]) -> HeadRun | None:
    """`changed` is part of the key: a log that has grown is read anew."""
    return heads_runs.reread(Path(folder))


def _nothing_yet(*, active: bool, starting: bool) -> None:
    if starting:
        with st.container(border=True):
            st.markdown("**The curves will stand here**")
            st.caption("Text is read and put into tokens before the first step.")
        return
    with st.container(border=True):
        st.markdown("**Heads draft without a second model**")
        st.markdown(
            "A head is a small module that is trained on the target's own hidden states: it reads "
            "what the target has worked out already and guesses what comes next. The target itself "
            "stays as it is and judges every guess, so the text stays the same."
        )
        if st.button(
            "Train a small one in a minute", icon=":material/model_training:", key="heads/small",
            type="primary", disabled=active,
            help="Medusa heads for the embedded target on the Python standard library.",
        ):  # fmt: skip
            start_training(small_training())
            st.rerun()
    st.html(_ABREAST)
    with st.container(horizontal=True, key="heads-kinds"):
        for kind, explained in EXPLAINED.items():
            with st.container(border=True, key=f"heads-kind-{kind}"):
                st.markdown(f"**{explained.title}**")
                st.image(picture(kind, theme()), width=330, alt=f"How {explained.title} drafts")
                st.caption(explained.text)
