"""From a press of Run to a stored run: the embedded pair, the engine and the worker, no fakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from workbench.store import list_runs

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 240_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def app(serve: Callable, runs: Path) -> str:
    return serve("app.py", DRAFTREE_RUNS=str(runs), OMP_NUM_THREADS="1")


def set_tokens(page: Page, count: int) -> None:
    page.get_by_role("spinbutton", name="New tokens").fill(str(count))
    page.keyboard.press("Enter")


def press_run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def test_one_press_of_run_ends_in_a_stored_run(app: str, runs: Path, new_page: Callable):
    page = new_page(app)
    set_tokens(page, 48)
    press_run(page)
    expect(page.locator(".state")).to_contain_text("Finished: 48 tokens", timeout=LONG)
    text = "".join(page.locator(".prose [data-step]").all_inner_texts())
    assert text.strip()
    assert page.locator(".node").count() > 3
    assert page.locator(".edge.bonus, .edge.correction").count() == 1
    tau = float(page.locator(".figure b").first.inner_text())
    assert tau >= 1
    (entry,) = list_runs(runs)
    assert str(entry.status) == "finished"


def test_stop_keeps_what_was_decoded(app: str, runs: Path, new_page: Callable):
    page = new_page(app)
    set_tokens(page, 700)
    press_run(page)
    expect(page.locator(".state")).to_contain_text("Decoding", timeout=LONG)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".state")).to_contain_text("Stopped after", timeout=LONG)
    assert [str(entry.status) for entry in list_runs(runs)].count("cancelled") == 1


def test_wrong_input_is_a_sentence_and_nothing_is_stored(app: str, runs: Path, new_page: Callable):
    before = len(list_runs(runs))
    page = new_page(app)
    page.get_by_text("Other models", exact=True).click()
    for name in ("Target", "Draft"):
        page.get_by_role("combobox", name=name).fill("/no/such/folder")
        page.keyboard.press("Enter")
    expect(page.get_by_text("There is no model folder")).to_be_visible(timeout=LONG)
    press_run(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("/no/such/folder", timeout=LONG)
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=LONG)
    assert len(list_runs(runs)) == before
