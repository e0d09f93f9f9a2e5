"""The pictures of README and docs, from real runs: `python tests/browser/take_screenshots.py`.

Decodes one prompt by several methods, serves a load, measures a comparison, a sweep and a search,
and trains heads for two minutes, into a store of its own (or takes the store that `--runs` names).
Saves every page in both themes at two widths as docs/images/PAGE-THEME-WIDTH.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from itertools import product
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
WIDTHS = {1440: 960, 820: 1180}
METHODS = ("autoregressive", "static-tree", "speculative", "dynamic-tree")
PROMPT = '''def read_table(path, *, encoding="utf-8", delimiter=None):
    """Read a table from a text file and return its rows.

    The first line holds the names of the columns. Empty lines are skipped.
    """
    rows = []
    with open(path, encoding=encoding) as file:'''
SWEEP = {
    "name": "tree-size",
    "methods": ["dynamic-tree:nodes=[4,6,8],depth=[2,4,6]"],
    "workloads": ["code"],
    "limit": 2,
    "repeats": 2,
    "max_new_tokens": 64,
}
STUDY = "tree-search"
HEADS = "pycode-target-medusa"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, help="a store that is there already")
    parser.add_argument("--pages", default=",".join(VIEWS), help=f"of {', '.join(VIEWS)}")
    arguments = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        runs = arguments.runs or Path(scratch)
        environment = os.environ | {"DRAFTREE_RUNS": str(runs)}
        if arguments.runs is None:
            fill(environment, Path(scratch))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", port,
             "--server.headless", "true"],
            cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            take(f"http://127.0.0.1:{port}", arguments.pages.split(","))
        finally:
            server.terminate()
            server.wait()


def fill(environment: dict[str, str], scratch: Path) -> None:
    """Runs of one prompt, a comparison, a sweep."""
    draftree = str(Path(sys.executable).with_name("draftree"))

    def do(*arguments: str) -> None:  # what it leaves in the folder it stands in goes with it
        subprocess.run([draftree, *arguments], cwd=scratch, env=environment, check=True)

    sweep = scratch / "sweep.json"
    sweep.write_text(json.dumps(SWEEP))
    do("sweep", str(sweep))
    do("compare", "-m", "speculative,static-tree,dynamic-tree", "-w", "code", "-w", "edit",
       "--limit", "4", "--repeats", "3", "-n", "96")  # fmt: skip
    do("tune", "dynamic-tree", "-w", "code", "--limit", "6", "-n", "64", "--trials", "16",
       "--only", "policy,nodes,depth", "--name", STUDY)  # fmt: skip
    do("load", "-m", "dynamic-tree", "-o", "policy=auto", "--rate", "8", "--requests", "40",
       "-n", "40", "--slots", "5", "--clients", "3", "--deadline", "uniform:4-12",
       "--cancel-fraction", "0.08")  # fmt: skip
    folder = scratch / "heads" / HEADS
    do("train", "medusa", "--minutes", "2", "--written", "20000", "--work-dir", str(folder),
       "--out", str(folder), "--name", "head")  # fmt: skip
    for method in METHODS:
        do("run", "-m", method, "-p", PROMPT, "-n", "160")


def take(url: str, pages: list[str]) -> None:
    """Every page in both themes at both widths."""
    wait_until_up(url)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (width, height), scheme in product(pages, WIDTHS.items(), ("light", "dark")):
            # a context for each: charts are drawn for the theme that a page was opened with
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()
            page.set_default_timeout(120_000)
            address, prepare = VIEWS[name]
            page.goto(url + address)
            prepare(page)
            page.mouse.move(width // 2, 3)
            settled(page)
            path = IMAGES / f"{name}-{scheme}-{width}.png"
            page.screenshot(path=path)
            Image.open(path).convert("RGB").quantize(192).save(path, optimize=True)
            context.close()
        browser.close()


def wait_until_up(url: str) -> None:
    """The server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url + "/_stcore/health", timeout=1)
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the server did not start")


def settled(page: Page) -> None:
    """The script has run and charts are drawn."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    page.wait_for_timeout(2500)


def show_run(page: Page) -> None:
    """Type the prompt, press Run, and stop at a step with several fates."""
    page.locator(".view .state").wait_for()
    page.get_by_text("Own", exact=True).click()
    box = page.get_by_role("textbox", name="Own prompt")
    box.fill(PROMPT)
    box.press("Control+Enter")
    settled(page)
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".state", has_text="Finished").wait_for(timeout=300_000)
    settled(page)
    back = page.get_by_role("button", name="Previous step")
    while back.is_enabled():
        counts = [
            page.locator(f".scene .node.{kind}").count()
            for kind in ("accepted", "rejected", "not-reached")
        ]
        if min(counts) >= 1 and counts[0] >= 2:
            return
        back.click()


def show_replay(page: Page) -> None:
    page.locator(".replay .scene .node.root").first.wait_for()
    settled(page)


def show_race(page: Page) -> None:
    page.locator(".race .lanes").wait_for()
    settled(page)
    page.locator(".race .seek").evaluate(
        "seek => { seek.value = 420; seek.dispatchEvent(new Event('input', { bubbles: true })); }"
    )


def show_requests(page: Page) -> None:
    """A step in which others wait, and one of its requests."""
    page.locator(".requests .rows .seat").first.wait_for()
    settled(page)
    forward = page.get_by_role("button", name="Step forward")
    busy = page.locator(".requests .rows .seat:not([hidden]):not(.free)")
    while forward.is_enabled():
        waiting = page.locator(".requests .queue li:not([hidden])").count()
        if waiting >= 2 and busy.count() >= 4:
            break
        forward.click()
    busy.nth(1).locator(".who").click()
    settled(page)


def show_trees(page: Page) -> None:
    page.locator(".editor .scene .node").first.wait_for()
    settled(page)


def show_query(page: Page) -> None:
    settled(page)
    page.locator('[class*="st-key-example"] button').first.click()
    page.locator('[data-testid="stDataFrame"]').last.wait_for()
    settled(page)


VIEWS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "run": ("/", show_run),
    "replay": ("/replay?run=last&step=12", show_replay),
    "requests": ("/requests?step=20", show_requests),
    "compare": ("/compare", settled),
    "sweep": (f"/compare?sweep={SWEEP['name']}", settled),
    "tune": (f"/tune?study={STUDY}", settled),
    "heads": (f"/heads?training={HEADS}", settled),
    "race": ("/race", show_race),
    "trees": ("/trees?run=last", show_trees),
    "reports": ("/reports", settled),
    "query": ("/query", show_query),
}

if __name__ == "__main__":
    main()
