"""The Query page in a browser: an example answered, its CSV, a sentence for what is refused."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "workbench"))

from query_runs import write_run  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 120_000


@pytest.fixture(scope="module")
def app(serve: Callable, tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = tmp_path_factory.mktemp("queried")
    write_run(runs, method="speculative", steps=2)
    write_run(runs, method="dynamic-tree", options={"nodes": 8}, steps=3)
    return serve("app.py", DRAFTREE_RUNS=str(runs), OMP_NUM_THREADS="1")


@pytest.fixture
def page(app: str, blank_page: Callable) -> Page:
    page = blank_page()
    page.goto(f"{app}/query")
    page.get_by_role("button", name="Run query").wait_for()
    return page


def ask(page: Page, sql: str) -> None:
    page.get_by_role("textbox", name="SQL").fill(sql)
    page.get_by_role("textbox", name="SQL").press("Control+Enter")
    page.get_by_role("button", name="Run query").click()


def test_an_example_is_answered_with_one_click_and_downloaded(page: Page):
    page.get_by_role("button", name="Acceptance by depth").click()
    expect(page.get_by_text("4 rows from 2 runs")).to_be_visible(timeout=LONG)
    assert "node.depth" in page.get_by_role("textbox", name="SQL").input_value()
    assert "sql=" in page.url
    with page.expect_download() as started:
        page.get_by_role("button", name="Download CSV").click()
    text = Path(started.value.path()).read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["arm", "depth", "tested", "share"]
    assert ["speculative", "1", "2", "1.0"] in rows
    assert len(rows) == 5
    page.get_by_text("Chart", exact=True).click()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=LONG)


def test_what_is_refused_is_a_sentence(page: Page):
    ask(page, "SELECT * FROM read_csv('/etc/passwd')")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("no file, no network", timeout=LONG)
    ask(page, "SELECT nope FROM node")
    expect(alert).to_contain_text("Line 1, at “nope FROM node”", timeout=LONG)
    assert "root:" not in page.content()


def test_a_long_query_is_cancelled_at_once(page: Page):
    ask(page, "SELECT count(*) FROM range(10000000) a, range(10000000) b, node")
    expect(page.get_by_text(re.compile(r"^Asking"))).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("cancelled", timeout=10_000)
    expect(page.get_by_role("button", name="Run query")).to_be_enabled(timeout=LONG)


def test_hostile_text_in_a_result_stays_text(page: Page):
    hostile = '<img src=x onerror="document.title=1">'
    ask(page, f"SELECT '{hostile}' AS \"<b>x</b>\", 1 AS n UNION ALL SELECT 'b', 2")
    expect(page.get_by_text("2 rows from 2 runs")).to_be_visible(timeout=LONG)
    page.get_by_text("Chart", exact=True).click()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=LONG)
    assert page.title() != "1"
    assert page.locator("img[src='x']").count() == 0
