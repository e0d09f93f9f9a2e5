"""What the pages need from outside, in one place with defaults; tests put fakes here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from workbench.view.live import Handle
from workbench.view.presenter import Presenter


def _worker() -> Handle:
    from workbench.worker import WorkerHandle

    return WorkerHandle()


@dataclass(slots=True)
class Settings:
    make_handle: Callable[[], Handle] = _worker
    refresh_s: float = 0.5  # between updates of a run under way


settings = Settings()


@st.cache_resource(show_spinner=False)
def handle() -> Handle:
    """The one worker of this process, whoever looks at it."""
    return settings.make_handle()


@st.cache_resource(show_spinner=False)
def presenter() -> Presenter:
    return Presenter()
