"""The Compare page in a real browser, on measurements by the clock: progress, cancel, verdict."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FAKE = "tests/browser/fake_compare.py"
LONG = 120_000


@pytest.fixture
def quick(serve_once: Callable, tmp_path: Path) -> str:
    """Every measurement takes two seconds."""
    return serve_once(FAKE, FAKE_SECONDS="2", DRAFTREE_RUNS=str(tmp_path / "runs"))


@pytest.fixture
def slow(serve_once: Callable, tmp_path: Path) -> str:
    """A measurement that does not end by itself while a test looks at it."""
    return serve_once(FAKE, FAKE_SECONDS="600", DRAFTREE_RUNS=str(tmp_path / "runs"))


def compare(page: Page) -> Page:
    page.get_by_role("link", name="Compare").click()
    expect(button(page, "Measure")).to_be_enabled(timeout=LONG)
    return page


def button(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def no_overflow(page: Page) -> bool:
    return page.evaluate(
        "() => { const main = document.querySelector('[data-testid=stMain]');"
        " return main.scrollWidth <= main.clientWidth; }"
    )


def test_from_measure_to_verdict_charts_and_files(quick: str, new_page: Callable):
    page = compare(new_page(quick))
    expect(page.get_by_text("No comparison is stored yet")).to_be_visible()
    button(page, "Measure").click()
    expect(page.get_by_text("Comparing 3 methods on code")).to_be_visible(timeout=LONG)
    expect(page.get_by_text("It pays:")).to_be_visible(timeout=LONG)
    assert "comparison=compare-" in page.url
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=LONG)
    page.get_by_role("tab", name="Why").click()
    expect(page.get_by_text("From ideal to measured")).to_be_visible(timeout=LONG)
    page.get_by_role("tab", name="Figures").click()
    with page.expect_download() as told:
        button(page, "All figures as CSV").click()
    with Path(told.value.path()).open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines][:2] == ["autoregressive", "speculative"]
    assert float(lines[1]["speedup"]) > 1
    with page.expect_download() as told:
        button(page, "Report as one HTML file").click()
    assert Path(told.value.path()).read_text().startswith("<!doctype html>")


def test_refresh_second_tab_and_cancel(slow: str, new_page: Callable):
    page = compare(new_page(slow))
    button(page, "Measure").click()
    expect(page.get_by_text("Comparing 3 methods on code")).to_be_visible(timeout=LONG)
    page.reload()
    expect(page.get_by_text("Comparing 3 methods on code")).to_be_visible(timeout=LONG)
    run_page = new_page(slow)
    expect(run_page.get_by_text("A comparison of 3 arms on code is under way")).to_be_visible()
    expect(button(run_page, "Run")).to_be_disabled()
    button(page, "Cancel").click()
    expect(page.get_by_text("Stopped. What was complete is kept.")).to_be_visible(timeout=LONG)
    expect(button(page, "Measure")).to_be_enabled(timeout=LONG)
    expect(button(run_page, "Run")).to_be_enabled(timeout=LONG)


def test_a_sweep_ends_in_a_heat_map(quick: str, new_page: Callable):
    page = compare(new_page(quick))
    page.get_by_role("radio", name="Sweeps").or_(
        page.get_by_role("button", name="Sweeps", exact=True)
    ).click()
    expect(page.get_by_text("No sweep is stored yet")).to_be_visible(timeout=LONG)
    button(page, "Measure").click()
    expect(page.get_by_text("10 of 10 cells measured")).to_be_visible(timeout=LONG)
    best = page.locator(".js-plotly-plot text").filter(has_text="★ 1.60×")
    expect(best).to_be_visible(timeout=LONG)
    assert "sweep=dynamic-tree-nodes-depth" in page.url


@pytest.mark.parametrize("width", [1440, 820])
def test_nothing_is_wider_than_the_page(quick: str, new_page: Callable, width: int):
    page = compare(new_page(quick))
    page.set_viewport_size({"width": width, "height": 900})
    button(page, "Measure").click()
    expect(page.get_by_text("It pays:")).to_be_visible(timeout=LONG)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=LONG)
    assert no_overflow(page)
    for name in ("Figures", "Losslessness", "Protocol"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        assert no_overflow(page)
