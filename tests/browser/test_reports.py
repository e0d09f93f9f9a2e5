"""The Reports page in a browser: built, seen in a sandbox, downloaded, opened with no network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Download, Page, TimeoutError, expect

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "workbench"))

from query_runs import write_run  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 120_000
HOSTILE = "</script><script>window.top.owned=1</script><img src=x onerror=window.owned=1>"
DRAWN = "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('.main-svg'))"


@pytest.fixture(scope="module")
def app(serve: Callable, tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = tmp_path_factory.mktemp("reported")
    write_run(runs, method="speculative", steps=4, prompt=HOSTILE, arm=HOSTILE)
    return serve("app.py", DRAFTREE_RUNS=str(runs), OMP_NUM_THREADS="1")


@pytest.fixture
def page(app: str, blank_page: Callable) -> Page:
    page = blank_page()
    page.goto(f"{app}/reports")
    page.get_by_role("heading", name="Reports").wait_for()
    return page


def choose_the_run(page: Page) -> None:
    """The box before the only line of the table, which is drawn on a canvas.

    A canvas that is still being drawn hears no click, and says nothing of it.
    """
    table = page.get_by_test_id("stDataFrame").first
    frame = page.locator("iframe[title='Report preview']")
    for _ in range(6):
        table.click(position={"x": 16, "y": 52})
        try:
            frame.wait_for(timeout=15_000)
            break
        except TimeoutError:
            continue
    page.frame_locator("iframe[title='Report preview']").locator("h1").wait_for()


def downloaded(page: Page, button: str) -> Download:
    """What a button downloads. A press while the page is drawn anew may be lost: press again."""
    for _ in range(6):
        page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
        try:
            with page.expect_download(timeout=20_000) as started:
                page.get_by_role("button", name=button, exact=True).click()
            return started.value
        except TimeoutError:
            continue
    raise AssertionError(f"{button} downloads nothing")


def test_a_report_is_built_downloaded_and_opened_without_a_network(
    page: Page, chromium, tmp_path: Path
):
    choose_the_run(page)
    download = downloaded(page, "Download")
    file = tmp_path / download.suggested_filename
    download.save_as(file)
    assert file.suffix == ".html"
    context = chromium.new_context(offline=True)
    requests: list[str] = []
    problems: list[str] = []
    report = context.new_page()
    report.on("request", lambda request: requests.append(request.url))
    report.on("pageerror", lambda error: problems.append(str(error)))
    report.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    report.goto(file.as_uri())
    report.wait_for_function(DRAWN)
    assert report.locator(".tree svg rect").count() > 6
    box = report.locator(".tree svg").first.bounding_box()
    assert box is not None
    assert box["width"] > 100
    assert report.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert report.evaluate("window.owned") is None
    context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert problems == []


def test_the_preview_shares_nothing_with_the_app(page: Page):
    choose_the_run(page)
    frame = page.locator("iframe[title='Report preview']").element_handle().content_frame()
    assert frame is not None
    frame.wait_for_function(DRAWN)
    assert frame.evaluate("self.origin") == "null"
    reach = (
        "(() => { try { return parent.document.title; } catch (error) { return error.name; } })()"
    )
    assert frame.evaluate(reach) == "SecurityError"
    assert page.evaluate("window.owned") is None
    assert frame.evaluate("window.owned") is None
    expect(page.frame_locator("iframe[title='Report preview']").locator("h1")).to_contain_text(
        "<img src=x"
    )


def test_sections_and_title_change_the_preview(page: Page):
    choose_the_run(page)
    inside = page.frame_locator("iframe[title='Report preview']")
    expect(inside.get_by_role("heading", name="Draft trees")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Draft trees").click()
    expect(inside.get_by_role("heading", name="Draft trees")).to_have_count(0, timeout=LONG)
    page.get_by_role("textbox", name="Title").fill("<b>For Ann</b>")
    page.get_by_role("textbox", name="Title").press("Enter")
    expect(inside.locator(".made")).to_contain_text("<b>For Ann</b>", timeout=LONG)


def test_a_tree_is_saved_as_svg(page: Page, tmp_path: Path):
    choose_the_run(page)
    page.get_by_role("button", name="One picture").click()
    page.get_by_role("combobox", name="Chart or tree").click()
    page.get_by_role("option", name="Tree: Step").first.click()
    assert Path(downloaded(page, "SVG").path()).read_text(encoding="utf-8").startswith("<svg ")
