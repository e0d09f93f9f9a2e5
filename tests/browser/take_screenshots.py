"""The pictures of the README, from a real run: `python tests/browser/take_screenshots.py [PROMPT]`.

Presses Run on a fresh server with a store of its own and saves docs/images/run-light.png and
run-dark.png. PROMPT is the place of a prompt in the gallery, 0 at the top.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1440, "height": 900}


def main(prompt: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as runs:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", port,
             "--server.headless", "true"],
            cwd=ROOT, env=os.environ | {"DRAFTREE_RUNS": runs},
        )  # fmt: skip
        try:
            take(f"http://127.0.0.1:{port}", prompt)
        finally:
            server.terminate()
            server.wait()


def take(url: str, prompt: int) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        open_when_up(page, url)
        decode(page, prompt)
        page.locator(".state", has_text="Finished").wait_for(timeout=300_000)
        show_a_telling_step(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.mouse.move(700, 5)
            page.wait_for_timeout(2000)
            page.screenshot(path=IMAGES / f"run-{scheme}.png")
        browser.close()


def open_when_up(page: Page, url: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            page.goto(url)
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    page.locator(".view .state").wait_for(timeout=90_000)


def decode(page: Page, prompt: int) -> None:
    page.get_by_role("combobox", name="Gallery").click()
    for _ in range(prompt):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).wait_for()
    page.locator(".state", has_text="Decoding").wait_for(timeout=300_000)


def show_a_telling_step(page: Page) -> None:
    """Walk back to a step with several fates in its tree."""
    for _ in range(40):
        kinds = ("accepted", "rejected", "not-reached")
        counts = [page.locator(f".scene .node.{kind}").count() for kind in kinds]
        if min(counts) >= 1 and counts[0] >= 2:
            return
        page.get_by_role("button", name="Previous step").click()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
