"""The race in a real browser: plays to the end, the faster wins, pause holds, text is text."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "view"))

from ranked_runs import RANKS, write_run  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 120_000
HOSTILE = ["<b>bold</b>", "\x1b[2J", "\n", "\u202e", "<img src=x onerror=alert(1)>", "é"]


@pytest.fixture(scope="module")
def app(serve: Callable, tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = tmp_path_factory.mktemp("runs")
    write_run(runs, "", step_ms=60.0, words=HOSTILE, prompt="<i>p</i>")
    write_run(runs, "0;1;0.0;0.1", step_ms=80.0, words=HOSTILE, prompt="<i>p</i>")
    write_run(runs, "0", step_ms=100.0, words=HOSTILE, prompt="<i>p</i>", ranks=RANKS[:-2])
    return serve("tests/browser/fake_app.py", DRAFTREE_RUNS=str(runs))


def opened(app: str, blank_page: Callable, address: str = "") -> Page:
    page = blank_page()
    page.goto(f"{app}/race{address}")
    expect(page.locator(".race .lane").first).to_be_visible(timeout=LONG)
    return page


def at(page: Page) -> float:
    return float(page.locator(".race").get_attribute("data-at"))


def lane(page: Page, name: str):
    return page.locator(".race .lane", has=page.locator("h3", has_text=name)).first


def test_it_plays_to_the_end_and_the_faster_wins(app: str, blank_page: Callable):
    page = opened(app, blank_page)
    expect(page.locator(".race .lane")).to_have_count(3)
    page.get_by_label("Speed", exact=True).select_option("4")
    page.get_by_role("button", name="Play").click()
    expect(page.locator(".race")).to_have_attribute("data-state", "over", timeout=LONG)
    won = page.locator(".race .lane.first")
    expect(won).to_have_count(1)
    expect(won).to_contain_text("paths 0;1;0.0;0.1")
    expect(won.locator(".place")).to_contain_text("1st")
    places = page.locator(".race .place").all_inner_texts()
    assert sorted(place[:3] for place in places) == ["1st", "2nd", "3rd"]
    for text in places:
        assert re.search(r"\d\.\d{2,3} s$", text)
    plain = lane(page, "autoregressive")
    assert plain.get_attribute("data-tokens") == str(len(RANKS))
    assert plain.locator("dd").nth(2).inner_text() == "1.00"
    seconds = float(plain.locator(".place").inner_text().split("·")[1].split()[0])
    assert seconds == pytest.approx(0.06 * len(RANKS), abs=0.02)
    assert plain.locator("dd").nth(1).inner_text() == "17"


def test_pause_holds_and_restart_begins_again(app: str, blank_page: Callable):
    page = opened(app, blank_page)
    page.get_by_label("Speed", exact=True).select_option("0.25")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "() => { const v = document.querySelectorAll('*'); "
        "for (const e of v) { const r = e.shadowRoot?.querySelector('.race'); "
        "if (r && Number(r.dataset.at) > 100) return true; } return false; }"
    )
    page.get_by_role("button", name="Pause").click()
    held = at(page)
    tokens = lane(page, "autoregressive").get_attribute("data-tokens")
    page.evaluate(
        "() => new Promise((done) => { let n = 20; const f = () => --n ? "
        "requestAnimationFrame(f) : done(); f(); })"
    )
    assert at(page) == held
    assert lane(page, "autoregressive").get_attribute("data-tokens") == tokens
    page.get_by_role("button", name="Restart").click()
    assert at(page) == 0
    assert lane(page, "autoregressive").get_attribute("data-tokens") == "0"


def test_seeking_back_and_counting_prefill(app: str, blank_page: Callable):
    page = opened(app, blank_page)
    seek = page.get_by_label("Recorded time")
    seek.evaluate("el => { el.value = 1000; el.dispatchEvent(new Event('input')); }")
    total = at(page)
    assert lane(page, "autoregressive").get_attribute("data-tokens") == str(len(RANKS))
    seek.evaluate("el => { el.value = 300; el.dispatchEvent(new Event('input')); }")
    assert 0 < int(lane(page, "autoregressive").get_attribute("data-tokens")) < len(RANKS)
    page.get_by_label("Count prefill").check()
    seek.evaluate("el => { el.value = 1000; el.dispatchEvent(new Event('input')); }")
    assert at(page) == pytest.approx(total + 40, abs=1)


def test_text_is_text_and_origins_differ_by_shape(app: str, blank_page: Callable):
    page = opened(app, blank_page)
    seek = page.get_by_label("Recorded time")
    seek.evaluate("el => { el.value = 1000; el.dispatchEvent(new Event('input')); }")
    tree = lane(page, "static-tree").locator(".prose")
    text = tree.inner_text()
    assert "<b>bold</b>" in text
    assert "<img src=x" in text
    assert "<i>p</i>" in text
    assert tree.locator("b, img, i").count() == 0
    styles = {
        kind: tree.locator(f".{kind}").first.evaluate(
            "el => getComputedStyle(el).textDecorationStyle"
        )
        for kind in ("a", "b", "c")
    }
    assert len(set(styles.values())) == 3
    expect(page.locator(".race .parting")).to_contain_text("tokens")


def test_the_address_names_the_lanes(app: str, blank_page: Callable):
    page = opened(app, blank_page)
    labels = page.get_by_role("button", name=re.compile("static-tree"))
    assert labels.count() >= 1
    page.get_by_label("Runs").click()
    page.keyboard.press("Backspace")
    expect(page.locator(".race .lane")).to_have_count(2, timeout=LONG)
    expect(page).to_have_url(re.compile("lanes="))
    page.reload()
    expect(page.locator(".race .lane")).to_have_count(2, timeout=LONG)
