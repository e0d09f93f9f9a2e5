"""The decoding view in a real browser, on a scripted run: drawing, keys, cards, reattaching."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FAKE_APP = "tests/browser/fake_app.py"
LONG = 120_000


@pytest.fixture(scope="module")
def quick(serve: Callable) -> str:
    """Every run takes two seconds."""
    return serve(FAKE_APP, FAKE_STEPS="30", FAKE_STEP_S="0.05")


@pytest.fixture(scope="module")
def slow(serve: Callable) -> str:
    """A run that does not end by itself."""
    return serve(FAKE_APP, FAKE_STEPS="2000", FAKE_STEP_S="0.5")


@pytest.fixture(scope="module")
def large(serve: Callable) -> str:
    return serve(FAKE_APP, FAKE_STEPS="3", FAKE_STEP_S="0.05", FAKE_NODES="320")


def press_run(page: Page) -> None:
    """Press it and wait until the view is that of the new run, not of the one before."""
    view = page.locator(".view")
    before = view.get_attribute("data-run")
    page.get_by_role("button", name="Run", exact=True).click()
    stale = re.compile(f"^({before}|starting)$")
    expect(view).not_to_have_attribute("data-run", stale, timeout=LONG)


def finished(page: Page) -> Page:
    press_run(page)
    expect(page.locator(".state")).to_contain_text("Finished", timeout=LONG)
    return page


def shown_step(page: Page) -> int:
    title = page.locator(".which").inner_text()
    return int(re.search(r"step (\d+) of", title).group(1))


def reached(page: Page, least: int) -> None:
    """Wait for a step; a busy machine may show only some of them."""
    for _ in range(LONG // 100):
        if page.locator(".which").inner_text() != "Draft tree" and shown_step(page) >= least:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"step {least} did not come: {page.locator('.state').inner_text()}")


def test_a_finished_run_shows_text_tree_times_and_charts(quick: str, new_page: Callable):
    page = finished(new_page(quick))
    for kind in ("a", "b", "c"):
        assert page.locator(f".prose .{kind}").count() > 0
    expect(page.locator(".prose .prompt")).not_to_be_empty()
    assert page.locator(".node").count() > 3
    assert page.locator(".edge.bonus, .edge.correction").count() == 1
    assert page.locator(".stages dt").all_inner_texts() == [
        *("draft", "build", "score", "verify", "commit", "record", "unaccounted")
    ]
    assert page.locator(".figure").count() == 5
    assert page.locator(".depth .track").count() > 0
    assert page.locator(".strip .acc").get_attribute("d")


def test_arrow_keys_walk_through_steps_without_the_server(quick: str, new_page: Callable):
    page = finished(new_page(quick))
    page.locator(".head").click()
    last = shown_step(page)
    page.context.set_offline(True)
    for back in range(1, 4):
        page.keyboard.press("ArrowLeft")
        assert shown_step(page) == last - back
        assert page.locator(".prose .now").count() > 0
        assert page.locator(".node.root").count() == 1
    page.keyboard.press("ArrowRight")
    assert shown_step(page) == last - 2
    page.context.set_offline(False)


def test_arrow_keys_are_left_to_form_fields(quick: str, new_page: Callable):
    page = finished(new_page(quick))
    last = shown_step(page)
    page.get_by_role("spinbutton", name="New tokens").focus()
    page.keyboard.press("ArrowLeft")
    assert shown_step(page) == last


def test_a_token_and_a_bar_choose_their_step(quick: str, new_page: Callable):
    page = finished(new_page(quick))
    page.locator('.prose [data-step="4"]').first.click()
    assert shown_step(page) == 5
    page.locator(".strip svg").click(position={"x": 2 + 9 * 7 + 3, "y": 40})
    assert shown_step(page) == 8


def test_hovering_a_node_explains_it(quick: str, new_page: Callable):
    page = finished(new_page(quick))
    page.locator(".node.rejected, .node.accepted").first.hover()
    card = page.locator(".card")
    expect(card).to_be_visible()
    for word in ("token id", "depth", "rank", "p draft", "p target"):
        expect(card).to_contain_text(word)
    assert card.locator("p").inner_text().endswith((".", "time."))
    page.locator(".head").hover()
    expect(card).to_be_hidden()


def test_zoom_pan_and_fit(quick: str, new_page: Callable):
    page = finished(new_page(quick))
    scene = page.locator(".scene")
    fitted = scene.get_attribute("transform")
    page.get_by_role("button", name="Zoom in").click()
    zoomed = scene.get_attribute("transform")
    assert zoomed != fitted
    box = page.locator(".stage svg").bounding_box()
    page.mouse.move(box["x"] + 600, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 80, steps=4)
    page.mouse.up()
    assert scene.get_attribute("transform") != zoomed
    page.keyboard.press("f")
    drawn = page.locator(".scene").bounding_box()
    assert drawn["x"] >= box["x"] - 1
    assert drawn["x"] + drawn["width"] <= box["x"] + box["width"] + 1
    assert drawn["y"] + drawn["height"] <= box["y"] + box["height"] + 1


def test_320_nodes_are_folded_and_unfold_on_a_click(large: str, new_page: Callable):
    page = finished(new_page(large))
    assert 100 < page.locator(".scene .node").count() <= 200
    page.keyboard.press("f")
    page.locator(".node.fold").first.click(force=True)
    expect(page.locator(".node.fold")).to_have_count(0)
    expect(page.locator(".scene .node")).to_have_count(321)


def test_stop_works_and_leaves_what_there_is(slow: str, new_page: Callable):
    page = new_page(slow)
    press_run(page)
    reached(page, 2)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".state")).to_contain_text("Stopped", timeout=LONG)
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    assert page.locator(".prose [data-step]").count() > 0


def test_reload_and_a_second_tab_see_the_run_under_way(slow: str, new_page: Callable):
    page = new_page(slow)
    press_run(page)
    reached(page, 3)
    text = page.locator(".prose [data-step='0']").first.inner_text()
    page.reload()
    expect(page.locator(".which")).to_contain_text("step", timeout=LONG)
    assert page.locator(".prose [data-step='0']").first.inner_text() == text
    other = new_page(slow)
    expect(other.locator(".state")).to_contain_text("Decoding", timeout=LONG)
    assert other.locator(".prose [data-step='0']").first.inner_text() == text
    other.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".state")).to_contain_text("Stopped", timeout=LONG)


def test_stepping_back_stops_following_until_asked(slow: str, new_page: Callable):
    page = new_page(slow)
    press_run(page)
    reached(page, 4)
    page.locator(".head").click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    here = shown_step(page)
    expect(page.get_by_label("Follow live")).not_to_be_checked()
    page.wait_for_timeout(1500)
    assert shown_step(page) == here
    page.get_by_label("Follow live").check()
    expect(page.locator(".which")).not_to_contain_text(f"step {here} of")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".state")).to_contain_text("Stopped", timeout=LONG)


def test_hostile_text_is_text(quick: str, new_page: Callable):
    page = new_page(quick)
    page.get_by_role("button", name="Own", exact=True).or_(
        page.get_by_role("radio", name="Own", exact=True)
    ).click()
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>1</script>\u202e **b** $x$"
    page.get_by_label("Own prompt").fill(hostile)
    page.keyboard.press("Control+Enter")
    finished(page)
    prompt = page.locator(".prose .prompt")
    expect(prompt).to_contain_text("<img src=x onerror=")
    expect(prompt).to_contain_text("\\u202e **b** $x$")
    assert page.locator(".view img, .view script").count() == 0
    assert page.title() != "owned"
    expect(page.locator(".prose")).to_contain_text("<b>bold</b>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_reach_the_view(quick: str, blank_page: Callable, scheme: str):
    page = blank_page()
    page.emulate_media(color_scheme=scheme)
    page.goto(quick)
    page.locator(".view .state").wait_for(timeout=LONG)
    panel = page.locator(".head").evaluate("el => getComputedStyle(el).backgroundColor")
    assert panel == {"light": "rgb(255, 255, 255)", "dark": "rgb(25, 29, 38)"}[scheme]


def test_reduced_motion_is_respected(quick: str, blank_page: Callable):
    page = blank_page()
    page.emulate_media(reduced_motion="reduce")
    page.goto(quick)
    page.locator(".view .state").wait_for(timeout=LONG)
    finished(page)
    expect(page.locator(".scene .node").first).to_have_css("animation-name", "none")
