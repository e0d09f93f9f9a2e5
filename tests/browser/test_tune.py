"""The Tune page in a real browser, on scripted studies: progress, cancel, charts, Run page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FAKE = "tests/browser/fake_compare.py"
LONG = 120_000


@pytest.fixture
def quick(serve_once: Callable, tmp_path: Path) -> str:
    """Every study takes a second, and what its trials take to be stored."""
    return serve_once(FAKE, FAKE_SECONDS="1", DRAFTREE_RUNS=str(tmp_path / "runs"))


@pytest.fixture
def slow(serve_once: Callable, tmp_path: Path) -> str:
    """A study that does not end by itself while a test looks at it."""
    return serve_once(FAKE, FAKE_SECONDS="600", DRAFTREE_RUNS=str(tmp_path / "runs"))


def tune(page: Page) -> Page:
    page.get_by_role("link", name="Tune").click()
    expect(button(page, "Tune")).to_be_enabled(timeout=LONG)
    return page


def button(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def test_from_tune_to_charts_a_file_and_the_run_page(quick: str, new_page: Callable):
    page = tune(new_page(quick))
    expect(page.get_by_text("No study is stored yet")).to_be_visible()
    button(page, "Tune").click()
    expect(page.get_by_text("as fast as the defaults")).to_be_visible(timeout=LONG)
    assert "study=dynamic-tree-code" in page.url
    # the trials, speed against acceptance, and one figure for each option searched: nodes, depth
    expect(page.locator(".js-plotly-plot")).to_have_count(4, timeout=LONG)
    with page.expect_download() as told:
        button(page, "Spec as JSON").click()
    spec = json.loads(Path(told.value.path()).read_text())
    assert (spec["method"], spec["workload"]) == ("dynamic-tree", "code")
    for width in (820, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(
            "() => { const main = document.querySelector('[data-testid=stMain]');"
            " return main.scrollWidth <= main.clientWidth; }"
        )
    button(page, "Use it on the Run page").click()
    expect(page.get_by_text("The spec was taken over.")).to_be_visible(timeout=LONG)
    page.get_by_text("Method options").click()
    nodes = page.get_by_role("spinbutton", name="Nodes", exact=True)
    expect(nodes).to_have_value(str(spec["options"]["nodes"]))


def test_refresh_second_tab_and_cancel(slow: str, new_page: Callable):
    page = tune(new_page(slow))
    button(page, "Tune").click()
    expect(page.get_by_text("Tuning dynamic-tree on code: 30 trials")).to_be_visible(timeout=LONG)
    page.reload()
    expect(page.get_by_text("Tuning dynamic-tree on code: 30 trials")).to_be_visible(timeout=LONG)
    run_page = new_page(slow)
    expect(run_page.get_by_text("The study dynamic-tree-code is under way")).to_be_visible()
    expect(button(run_page, "Run")).to_be_disabled()
    button(page, "Cancel").click()
    expect(page.get_by_text("Stopped. Trials that were finished are kept")).to_be_visible(
        timeout=LONG
    )
    expect(page.get_by_text("3 of 30 trials")).to_be_visible(timeout=LONG)
    expect(button(run_page, "Run")).to_be_enabled(timeout=LONG)
    button(page, "Go on").click()
    expect(page.get_by_text("Tuning dynamic-tree on code: 30 trials")).to_be_visible(timeout=LONG)
    expect(button(page, "Cancel")).to_be_enabled(timeout=LONG)
