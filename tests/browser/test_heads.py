"""The Heads page in a real browser: trainings by the clock, and a tiny one by the real worker."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workbench"))
from tiny_pair import write_pair

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FAKE = "tests/browser/fake_compare.py"
LONG = 240_000


@pytest.fixture
def scripted(serve_once: Callable, tmp_path: Path) -> Callable[[int], str]:
    """An app whose trainings take so many seconds."""

    def start(seconds: int) -> str:
        return serve_once(FAKE, FAKE_SECONDS=str(seconds), DRAFTREE_RUNS=str(tmp_path / "runs"))

    return start


def heads(page: Page) -> Page:
    page.get_by_role("link", name="Heads").click()
    expect(button(page, "Train")).to_be_enabled(timeout=LONG)
    return page


def button(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).or_(button(page, name)).last.click()


def fits(page: Page) -> bool:
    return page.evaluate(
        "() => { const main = document.querySelector('[data-testid=stMain]');"
        " return main.scrollWidth <= main.clientWidth; }"
    )


def test_from_the_pictures_to_curves_a_card_and_the_run_page(
    scripted: Callable, new_page: Callable
):
    page = heads(new_page(scripted(4)))
    expect(page.get_by_text("Heads draft without a second model")).to_be_visible()
    expect(page.get_by_role("img", name="How EAGLE drafts")).to_be_visible()
    button(page, "Train a small one in a minute").click()
    expect(page.get_by_text("Finished after 41 k tokens.")).to_be_visible(timeout=LONG)
    assert "training=pycode-target-medusa-small" in page.url
    expect(page.locator(".js-plotly-plot")).to_have_count(2, timeout=LONG)
    expect(page.get_by_text("+24.0 points to an n-gram")).to_be_visible()
    for width in (820, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert fits(page)
    choose(page, "Heads")
    expect(page.get_by_text("40,960 tokens")).to_be_visible(timeout=LONG)
    assert fits(page)
    button(page, "Try it").last.click()
    expect(page.get_by_text("The spec was taken over.")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("combobox", name="Method")).to_have_value("medusa")


def test_refresh_second_tab_stop_and_go_on(scripted: Callable, new_page: Callable):
    app = scripted(600)
    page = heads(new_page(app))
    button(page, "Train").click()
    expect(page.get_by_text("Training pycode-target-medusa:")).to_be_visible(timeout=LONG)
    page.reload()
    expect(page.get_by_text("Training pycode-target-medusa:")).to_be_visible(timeout=LONG)
    other = new_page(app)
    expect(other.get_by_text("The training pycode-target-medusa is under way")).to_be_visible()
    expect(button(other, "Run")).to_be_disabled()
    button(page, "Stop").click()
    expect(page.get_by_text("Stopped. The checkpoint is kept")).to_be_visible(timeout=LONG)
    expect(button(other, "Run")).to_be_enabled(timeout=LONG)
    button(page, "Go on").click()
    expect(page.get_by_text("Training pycode-target-medusa:")).to_be_visible(timeout=LONG)
    expect(button(page, "Stop")).to_be_enabled(timeout=LONG)


@pytest.mark.timeout(1800)
def test_a_tiny_head_is_trained_stopped_gone_on_with_and_tried(
    serve_once: Callable, new_page: Callable, tmp_path: Path
):
    pair = write_pair(tmp_path / "pair", context=4096)
    text = tmp_path / "text"
    text.mkdir()
    for at in range(4):
        lines = "\n".join(f"def f{at}_{n}(a, b):\n    return a + {n} * b" for n in range(200))
        (text / f"part{at}.py").write_text(lines)
    app = serve_once("app.py", DRAFTREE_RUNS=str(tmp_path / "runs"), OMP_NUM_THREADS="1")
    page = heads(new_page(app))
    page.get_by_role("combobox", name="Target").fill(str(pair.target))
    page.keyboard.press("Enter")
    choose(page, "Files")
    page.get_by_role("textbox", name="Files or folders").fill(str(text))
    choose(page, "Tokens")
    page.get_by_role("spinbutton", name="Tokens", exact=True).fill("1000000")
    page.keyboard.press("Enter")
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_role("spinbutton", name="Tokens the target writes").fill("0")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Medusa for target on text, 1,000,000 tokens")).to_be_visible()
    button(page, "Train").click()
    expect(page.get_by_text(re.compile(r"\d+% done"))).not_to_have_count(0, timeout=LONG)
    button(page, "Stop").click()
    expect(page.get_by_text("Stopped. The checkpoint is kept")).to_be_visible(timeout=LONG)
    expect(page.get_by_text(re.compile(r"Stopped at \d+%"))).to_be_visible(timeout=LONG)
    assert (tmp_path / "runs" / "heads" / "target-medusa" / "head.pt").is_file()
    button(page, "Go on").click()
    expect(page.get_by_text("Finished after 1.00 M tokens.")).to_be_visible(timeout=3 * LONG)
    button(page, "Try it").click()
    expect(page.get_by_text("The spec was taken over.")).to_be_visible(timeout=LONG)
    page.get_by_role("spinbutton", name="New tokens").fill("24")
    page.keyboard.press("Enter")
    button(page, "Run").click()
    expect(page.locator(".state")).to_contain_text("Finished: 24 tokens", timeout=LONG)
