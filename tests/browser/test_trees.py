"""The tree editor in a real browser: drawing, figures at once, keys, and a real run (scripted)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "view"))

from ranked_runs import write_ranks, write_run  # noqa: E402

from engine.shapes import from_expansion, from_paths  # noqa: E402
from workbench.view.editor import prediction  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 120_000
OWN = "0;1;0.0;0.1"


class Served(NamedTuple):
    url: str
    runs: Path
    cache: Path
    exact: str  # a run whose ranks are all known
    open: str  # and one with gaps


@pytest.fixture(scope="module")
def served(serve: Callable, tmp_path_factory: pytest.TempPathFactory) -> Served:
    runs, cache = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache")
    write_run(runs, "", step_ms=6.0, prompt="plain")
    hostile = ["<b>x</b>", "\n", "\u202e", " a", "(", "é", ")"]
    opened = write_run(runs, OWN)
    exact = write_run(runs, OWN, words=hostile)
    write_ranks(cache, exact)
    url = serve(
        "tests/browser/fake_app.py", FAKE_STEPS="20", FAKE_STEP_S="0.05",
        DRAFTREE_RUNS=str(runs), DRAFTREE_CACHE=str(cache),
    )  # fmt: skip
    return Served(url, runs, cache, exact, opened)


def opened(blank_page: Callable, served: Served, run: str) -> Page:
    page = blank_page()
    page.goto(f"{served.url}/trees?run={run}")
    expect(page.locator(".editor .node").first).to_be_visible(timeout=LONG)
    return page


def paths(page: Page) -> str:
    return page.locator(".editor").get_attribute("data-paths")


def node(page: Page, path: str):
    return page.locator(f'.editor .node[data-path="{path}"]')


def cell(page: Page, row: str, column: int = 0) -> str:
    return page.locator(f'.editor tr[data-row="{row}"] td').nth(column).inner_text()


def test_clicking_adds_and_removes_and_figures_follow(
    served: Served, blank_page: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DRAFTREE_CACHE", str(served.cache))

    def right_figures() -> None:
        """Those of Python for the tree on the page."""
        shape = from_paths(paths(page))
        found = prediction(served.exact, shape, children=None, folder=served.runs)
        assert cell(page, "tau") == f"{found.low.tokens_per_step:.2f}"
        assert cell(page, "second") == f"{found.tokens_per_second(found.low):.0f}"
        assert cell(page, "nodes") == str(found.nodes)

    page = opened(blank_page, served, served.exact)
    assert paths(page) == "1;0.0;0.1"
    page.context.set_offline(True)  # all of it happens in the page
    right_figures()
    node(page, "0.0").click()
    assert paths(page) == "1;0.1;0.0.0"
    right_figures()
    node(page, "").click()
    assert paths(page) == "1;2;0.1;0.0.0"
    right_figures()
    node(page, "0").hover()
    node(page, "0").locator(".drop").click()
    assert paths(page) == "1;2"
    right_figures()
    page.get_by_role("button", name="Undo").click()
    assert paths(page) == "1;2;0.1;0.0.0"
    page.get_by_role("button", name="Redo").click()
    assert paths(page) == "1;2"
    assert "paths=1;2" in page.locator(".editor .shape code").inner_text()
    page.context.set_offline(False)


def test_keys_choose_add_remove_and_undo(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.exact)
    page.locator(".editor .stage").focus()
    page.keyboard.press("ArrowRight")
    expect(node(page, "0")).to_have_class(re.compile("sel"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert paths(page) == "0.0;0.1;1.0"
    page.keyboard.press("Delete")
    assert paths(page) == "0.0;0.1"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert paths(page) == "1;0.0;0.1"


@pytest.mark.parametrize(
    ("run", "text"),
    [("exact", "1,1,1,1"), ("exact", "2,2,1,1"), ("open", "2,2,1,1"), ("open", "4,2,1")],
)
def test_page_and_command_line_reckon_alike(
    served: Served, blank_page: Callable, monkeypatch: pytest.MonkeyPatch, run: str, text: str
):
    monkeypatch.setenv("DRAFTREE_CACHE", str(served.cache))
    run_id = getattr(served, run)
    found = prediction(run_id, from_expansion(text), children=None, folder=served.runs)
    assert found.exact == (run == "exact")
    page = opened(blank_page, served, run_id)
    name = {"1,1,1,1": "chain of 4"}.get(text, text)
    page.get_by_label("Start from").select_option(label=name)
    low, high = (f"{o.tokens_per_step:.2f}" for o in (found.low, found.high))
    assert cell(page, "tau") == (low if low == high else f"{low}–{high}")
    low, high = (f"{found.tokens_per_second(o):.0f}" for o in (found.low, found.high))
    assert cell(page, "second") == (low if low == high else f"{low}–{high}")
    assert cell(page, "ms") == f"{found.step.ms:.1f}"
    assert page.locator(".editor .times").inner_text().startswith(
        "Accepted tokens are exact" if found.exact else "Some ranks are unknown"
    )  # fmt: skip


def test_presets_and_the_optimal_tree(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.exact)
    page.get_by_label("Start from").select_option(label="chain of 4")
    assert paths(page) == "0.0.0.0"
    page.get_by_label("Nodes of the optimal tree").fill("6")
    page.keyboard.press("Enter")
    assert cell(page, "nodes") == "6"
    assert cell(page, "tau") == cell(page, "tau", 2), "it is the optimal one of its size"
    page.get_by_label("Start from").select_option(label="the run's own")
    assert paths(page) == "1;0.0;0.1"
    assert cell(page, "tau") == cell(page, "tau", 1), "predicted and measured agree on its own"


def test_nodes_that_never_earn_are_faded_and_explained(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.exact)
    for _ in range(2):
        node(page, "").click()  # ranks 2 and 3: nothing ranks 3 there
    expect(node(page, "3")).to_have_class(re.compile("rejected"))
    page.get_by_label("Start from").focus()
    node(page, "0").hover()
    faded = "el => Number(getComputedStyle(el).opacity)"
    assert node(page, "3").evaluate(faded) < node(page, "0").evaluate(faded)
    expect(page.locator(".editor .card")).to_contain_text("tokens per step")


def test_text_is_text(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.exact)
    page.get_by_label("Start from").select_option(label="SpecInfer")
    rows = page.locator(".editor .row code")
    assert rows.count() > 0
    assert "<b>x</b>" in "".join(rows.all_inner_texts())
    assert page.locator(".editor .row b b, .editor code b").count() == 0


def test_run_it_for_real_shows_predicted_and_measured(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.exact)
    page.get_by_role("button", name="Run it for real").click()
    expect(page.get_by_text("Predicted and measured")).to_be_visible(timeout=LONG)
    expect(page.get_by_text("Finished.", exact=True)).to_be_visible(timeout=LONG)
    expect(page.get_by_role("button", name="Run it for real")).to_be_enabled(timeout=LONG)


def test_unknown_ranks_are_said_and_can_be_completed(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.open)
    assert "–" in cell_after_preset(page, "4,2,1")
    expect(page.get_by_role("button", name="Make exact")).to_be_visible()


def cell_after_preset(page: Page, name: str) -> str:
    page.get_by_label("Start from").select_option(label=name)
    return cell(page, "tau")


def test_a_step_opens_in_replay(served: Served, blank_page: Callable):
    page = opened(blank_page, served, served.exact)
    page.get_by_label("Start from").select_option(label="SpecInfer")
    page.locator(".editor .row").first.click()
    expect(page).to_have_url(re.compile(r"/replay\?"), timeout=LONG)
