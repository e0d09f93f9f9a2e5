"""The Run page when things go wrong, with the real worker: killed, stopped, reloaded, flooded."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from workbench.store import list_runs

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 240_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("troubled")


@pytest.fixture(scope="module")
def app(serve: Callable, runs: Path) -> str:
    return serve("app.py", DRAFTREE_RUNS=str(runs), OMP_NUM_THREADS="1")


def worker_of(app: str) -> psutil.Process:
    """The worker among the children of the server that listens on this port."""
    port = int(app.rpartition(":")[2])
    (server,) = (
        server
        for server in multiprocessing.active_children()
        if server.name == f"streamlit on {port}"
    )
    for child in psutil.Process(server.pid).children():
        if "workbench.worker_process" in child.cmdline():
            return child
    raise AssertionError("no worker is there")


def begin(page: Page, tokens: int) -> None:
    page.get_by_role("spinbutton", name="New tokens").fill(str(tokens))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".state")).to_contain_text("Decoding", timeout=LONG)


def test_a_killed_worker_is_named_and_the_next_run_works(app: str, runs: Path, new_page: Callable):
    page = new_page(app)
    begin(page, 1500)
    os.kill(worker_of(app).pid, signal.SIGKILL)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The worker died of SIGKILL", timeout=LONG)
    expect(alert).to_contain_text("memory ran out")
    expect(page.locator(".state")).to_contain_text("Interrupted after")
    (entry,) = list_runs(runs)
    assert str(entry.status) == "interrupted"
    assert "SIGKILL" in entry.message
    begin(page, 24)
    expect(page.locator(".state")).to_contain_text("Finished: 24 tokens", timeout=LONG)
    expect(alert).to_have_count(0)


def test_a_reload_and_a_second_tab_find_the_run_and_any_of_them_stops_it(
    app: str, runs: Path, new_page: Callable
):
    page = new_page(app)
    begin(page, 1500)
    shown = page.locator(".view").get_attribute("data-run")
    page.reload()
    page.locator(".view .state").wait_for()
    expect(page.locator(".state")).to_contain_text("Decoding", timeout=LONG)
    assert page.locator(".view").get_attribute("data-run") == shown
    other = new_page(app)
    expect(other.locator(".state")).to_contain_text("Decoding", timeout=LONG)
    expect(other.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    other.get_by_role("button", name="Stop", exact=True).click()
    for one in (page, other):
        expect(one.locator(".state")).to_contain_text("Stopped after", timeout=LONG)
        expect(one.get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=LONG)


def test_a_prompt_of_markup_controls_and_emoji_is_shown_as_text(app: str, new_page: Callable):
    page = new_page(app)
    page.get_by_text("Own", exact=True).click()
    hostile = "<img src=x onerror=\"document.title='owned'\"> \x07\x1b[31m \u202e 👩‍🚀 é **b**"
    page.get_by_label("Own prompt").fill(hostile)
    page.keyboard.press("Control+Enter")
    begin_and_finish(page)
    prompt = page.locator(".prose .prompt")
    expect(prompt).to_have_count(1)
    for shown in ("<img src=x onerror=", "\\x1b[31m", "\\u202e", "👩", "🚀", "é **b**"):
        expect(prompt).to_contain_text(shown)
    assert page.locator(".view img").count() == 0
    assert page.title() != "owned"


def begin_and_finish(page: Page) -> None:
    page.get_by_role("spinbutton", name="New tokens").fill("16")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".state")).to_contain_text("Finished: 16 tokens", timeout=LONG)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on PATH")
def test_compiling_is_offered_after_an_eager_run_and_stops_at_once(app: str, new_page: Callable):
    page = new_page(app)
    begin_and_finish(page)
    page.get_by_role("button", name="Compile for speed").click()
    expect(page.locator(".state")).to_contain_text(re.compile("compiling", re.I), timeout=LONG)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=20_000)
    expect(page.locator(".state")).to_contain_text("Stopped", timeout=LONG)
    compilers = [one for one in worker_of(app).children(recursive=True) if one.is_running()]
    assert not [one for one in compilers if "engine.compiling" in one.cmdline()]


def test_a_prompt_of_100_kb_is_refused_with_a_sentence(app: str, runs: Path, new_page: Callable):
    before = len(list_runs(runs))
    page = new_page(app)
    page.get_by_text("Own", exact=True).click()
    page.get_by_label("Own prompt").fill("def f(x): " * 10_000)
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("100 kB", timeout=LONG)
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    assert len(list_runs(runs)) == before
