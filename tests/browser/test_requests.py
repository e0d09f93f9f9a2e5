"""The requests view in a real browser: steps, play, choosing, bids, lanes, live, a real run."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from workbench.store import list_runs

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "view"))

from scripted_load import Load, scripted_load, store_load  # noqa: E402
from stored_runs import random_steps  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FAKE = "tests/browser/fake_serving.py"
LONG = 120_000
LOAD = scripted_load(60, gap_ms=25.0, ranks=2)
#: a step in which all four slots are taken and requests wait
BUSY = next(at for at in range(40, 200) if LOAD.ticks[at].row.waiting >= 3)


@pytest.fixture(scope="module")
def load() -> Load:
    return LOAD


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, load: Load) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("runs")
    steps = [random_steps(9, seed=seed) for seed in range(len(load.arrivals))]
    spec = {"slots": 4, "clients": 4, "options": {"policy": "auto"}}
    return folder, store_load(folder, load, steps_of=steps, **spec)


@pytest.fixture(scope="module")
def app(serve: Callable, stored: tuple[Path, str]) -> str:
    return serve(FAKE, DRAFTREE_RUNS=str(stored[0]))


def opened(app: str, blank_page: Callable, address: str = "") -> Page:
    page = blank_page()
    page.goto(f"{app}/requests{address}")
    expect(page.locator(".requests .where")).to_contain_text(" of ", timeout=LONG)
    return page


def step(page: Page) -> int:
    return int(page.locator(".requests").get_attribute("data-step") or 0)


def seat_of(page: Page, request: int) -> Locator:
    return page.locator(".rows .seat", has=page.locator("b", has_text=re.compile(f"^#{request}$")))


def test_arrow_keys_step_and_all_panels_agree_with_the_rows(
    app: str, blank_page: Callable, load: Load
):
    page = opened(app, blank_page, f"?step={BUSY}")
    assert step(page) == BUSY
    page.keyboard.press("ArrowRight")
    assert step(page) == BUSY + 1
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert step(page) == BUSY - 20
    page.keyboard.press("End")
    assert step(page) == len(load.ticks)
    page.keyboard.press("Home")
    assert step(page) == 1
    page.locator(".scrub").evaluate(
        "(el, to) => { el.value = to; el.dispatchEvent(new Event('input')); }", BUSY
    )
    tick = load.ticks[BUSY]
    expect(page.locator(".batch .which")).to_contain_text(f"{tick.row.active} in the batch")
    for share in tick.shares:
        seat = seat_of(page, share.request + 1)
        expect(seat.locator(".slot")).to_have_text(str(share.slot + 1))
        said = f"{share.accepted} of {share.nodes}" if share.nodes else "none"
        expect(seat.locator(".nodes small")).to_have_text(said)
        expect(seat.locator(".kept")).to_have_text(f"+{share.kept}")
        expect(seat.locator(".bid")).to_have_text(f"{share.bid:.2f}")
    begin = tick.row.begin_ns
    waiting = [
        row for row in load.arrivals
        if row.arrival_ns <= begin and (row.admitted_ns or begin + 1) > begin
        and (row.ended_ns or begin + 1) > begin
    ]  # fmt: skip
    assert waiting, "else this shows nothing"
    expect(page.locator(".how-many")).to_contain_text(f"{len(waiting)} waiting")
    expect(page.locator(".queue li:not([hidden])")).to_have_count(len(waiting))


def test_a_step_takes_less_than_fifty_milliseconds(app: str, blank_page: Callable):
    page = opened(app, blank_page, f"?step={BUSY}")
    took = page.evaluate(
        """async () => {
            const took = [], frame = () => new Promise(requestAnimationFrame);
            for (let i = 0; i < 40; i++) {
                await frame();
                const begin = performance.now();
                document.body.dispatchEvent(
                    new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
                took.push(performance.now() - begin);
            }
            return took.sort((a, b) => a - b);
        }"""
    )
    assert step(page) == BUSY + 40
    assert took[len(took) // 2] < 50


def test_it_plays_and_pauses(app: str, blank_page: Callable):
    page = opened(app, blank_page)
    page.get_by_label("Speed", exact=True).select_option("10")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('*')].some((e) => "
        "Number(e.shadowRoot?.querySelector('.requests')?.dataset.step) > 4)"
    )
    page.get_by_role("button", name="Pause", exact=True).click()
    held = step(page)
    page.evaluate(
        "() => new Promise((done) => { let n = 30; const f = () => --n ? "
        "requestAnimationFrame(f) : done(); f(); })"
    )
    assert step(page) == held
    expect(page).to_have_url(re.compile(f"step={held}"))


def test_by_bid_the_winner_stands_first_and_says_why(app: str, blank_page: Callable, load: Load):
    page = opened(app, blank_page, f"?step={BUSY + 1}")
    expect(page.locator(".rows .seat .bid").first).not_to_be_empty()
    page.keyboard.press("b")
    expect(page.get_by_role("button", name="By bid")).to_have_attribute("aria-pressed", "true")
    shares = sorted(load.ticks[BUSY].shares, key=lambda share: -share.bid)
    shown = page.locator(".rows .seat:not([hidden]) .who b").all_inner_texts()
    assert shown[: len(shares)] == [f"#{share.request + 1}" for share in shares]
    page.locator(".rows .seat .who").first.hover()
    card = page.locator(".batch .card")
    expect(card).to_be_visible()
    expect(card).to_contain_text("with the highest bid")
    expect(card).to_contain_text(f"{shares[0].nodes} of {sum(s.nodes for s in shares)}")


def test_a_chosen_request_is_followed_and_opens_in_replay(
    app: str, blank_page: Callable, load: Load, stored: tuple[Path, str]
):
    page = opened(app, blank_page, f"?step={BUSY + 1}")
    share = load.ticks[BUSY].shares[0]
    seat_of(page, share.request + 1).locator(".who").click()
    expect(seat_of(page, share.request + 1)).to_have_class(re.compile("chosen"))
    expect(page.locator(".picked .story")).to_contain_text(f"in slot {share.slot + 1}")
    expect(page).to_have_url(re.compile(f"request={share.request + 1}"))
    page.reload()
    expect(page.locator(".picked .story")).to_contain_text(
        f"in slot {share.slot + 1}", timeout=LONG
    )
    assert step(page) == BUSY + 1
    own = sum(
        one.request == share.request for tick in load.ticks[:BUSY] for one in tick.shares
    )  # its steps before this one
    page.get_by_role("button", name="Open in Replay").click()
    expect(page.locator(".replay .where")).to_contain_text(f"step {own + 1} of", timeout=LONG)
    expect(page).to_have_url(re.compile(rf"/replay\?.*run={stored[1]}"))
    expect(page).to_have_url(re.compile(rf"request={share.request + 1}(&|$)"))


def test_names_are_text_and_the_tables_stand_below(app: str, blank_page: Callable):
    page = opened(app, blank_page, f"?step={BUSY + 1}")
    view = page.locator(".requests")
    expect(view).to_contain_text("bob <b>x</b>")
    assert view.locator(".who small b").count() == 0
    assert "\u202e" not in view.inner_text()
    expect(page.locator("[data-testid=stDataFrame]")).to_have_count(2, timeout=LONG)
    expect(page.locator(".js-plotly-plot")).to_have_count(4, timeout=LONG)
    for width in (820, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(  # tables take their new width a moment later
            "() => { const main = document.querySelector('[data-testid=stMain]');"
            " return main.scrollWidth <= main.clientWidth; }"
        )


def test_lanes_zoom_and_take_the_colours_of_either_theme(app: str, blank_page: Callable):
    page = opened(app, blank_page, f"?step={BUSY + 1}")
    expect(page.locator(".gantt .names em")).to_have_text(["target", "draft", "network"] * 2)
    plot = page.locator(".gantt .plot")
    plot.scroll_into_view_if_needed()
    shown = "(el) => el.querySelector('canvas').toDataURL()"
    around = plot.evaluate(shown)
    page.get_by_role("button", name="All of the lanes").click()
    page.wait_for_function(
        "(before) => [...document.querySelectorAll('*')].some((e) => { const c = e.shadowRoot"
        "?.querySelector('.gantt canvas'); return c && c.toDataURL() !== before; })",
        arg=around,
    )
    whole = plot.evaluate(shown)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "(before) => [...document.querySelectorAll('*')].some((e) => { const c = e.shadowRoot"
        "?.querySelector('.gantt canvas'); return c && c.toDataURL() !== before; })",
        arg=whole,
    )
    page.mouse.move(10, 10)
    box = plot.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 8)
    assert step(page) != BUSY + 1


def test_a_run_on_several_ranks_shows_its_lanes_alone(
    serve_once: Callable, blank_page: Callable, tmp_path
):
    store_load(tmp_path, Load([], [], scripted_load(6, ranks=2).lanes))
    page = opened(serve_once(FAKE, DRAFTREE_RUNS=str(tmp_path)), blank_page)
    expect(page.locator(".requests .state")).to_contain_text("on 2 ranks")
    expect(page.locator(".requests .gantt")).to_be_visible()
    for panel in (".batch", ".queue", ".flow", ".latency"):
        expect(page.locator(f".requests {panel}")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    assert step(page) == 2


def test_live_follows_and_becomes_the_stored_run(
    serve_once: Callable, new_page: Callable, tmp_path: Path
):
    page = new_page(serve_once(FAKE, DRAFTREE_RUNS=str(tmp_path), FAKE_SECONDS="12"))
    page.get_by_role("link", name="Requests").click()
    expect(page.get_by_text("No load run is stored yet")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".requests .state")).to_contain_text("Serving:", timeout=LONG)
    expect(page.get_by_label("Follow")).to_be_checked()
    first = step(page)
    page.wait_for_function(
        "(first) => [...document.querySelectorAll('*')].some((e) => "
        "Number(e.shadowRoot?.querySelector('.requests')?.dataset.step) > first + 3)",
        arg=first,
    )
    page.get_by_role("button", name="Step back").click()
    expect(page.get_by_label("Follow")).not_to_be_checked()
    expect(page.locator(".requests .state")).to_contain_text("served", timeout=LONG)
    expect(page.locator("[data-testid=stDataFrame]").first).to_be_visible(timeout=LONG)
    expect(page).to_have_url(re.compile("run="))


def test_a_small_load_run_is_served_for_real(
    serve_once: Callable, new_page: Callable, tmp_path: Path
):
    page = new_page(serve_once("app.py", DRAFTREE_RUNS=str(tmp_path), OMP_NUM_THREADS="1"))
    page.get_by_role("link", name="Requests").click()
    for name, value in {"Requests": 4, "Slots": 2, "New tokens": 8, "Per second": 20}.items():
        page.get_by_role("spinbutton", name=name, exact=True).fill(str(value))
        page.keyboard.press("Enter")
    expect(page.get_by_text("4 requests of at most 8 tokens")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".requests .state")).to_contain_text(
        "4 of 4 requests served", timeout=400_000
    )
    expect(page.locator(".requests .seat .who b").first).not_to_be_empty()
    (entry,) = list_runs(tmp_path)
    assert str(entry.status) == "finished"
    assert entry.spec["slots"] == 2
