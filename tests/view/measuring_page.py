"""A page whose jobs are scripted, without a browser: opened, read, waited for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from scripted_measuring import MeasuringHandle
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]


def scripted_handle(monkeypatch: pytest.MonkeyPatch, runs: Path) -> MeasuringHandle:
    """What the pages get instead of the worker; runs are stored in `runs`."""
    import streamlit as st

    monkeypatch.setenv("DRAFTREE_RUNS", str(runs))
    monkeypatch.syspath_prepend(str(ROOT))
    from pages.parts import settings as module

    fake = MeasuringHandle(seconds=0.2, steps=3, step_s=0.01, load_s=0.0)
    monkeypatch.setattr(module.settings, "make_handle", lambda: fake)
    st.cache_resource.clear()
    st.cache_data.clear()
    return fake


def opened(name: str, **address: str) -> AppTest:
    """A page of the app, as at an address with these parameters."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    at.switch_page(f"pages/{name}.py")
    for key, value in address.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception
    return at


def said(at: AppTest) -> str:
    """All text of the page, its escapes taken away."""
    parts = [*at.markdown, *at.caption, *at.error, *at.warning, *at.info]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def done(at: AppTest, handle: MeasuringHandle) -> AppTest:
    """The page once its job has ended."""
    deadline = time.monotonic() + 60
    while handle.active and time.monotonic() < deadline:
        time.sleep(0.02)
    at.run()
    assert not at.exception
    return at
