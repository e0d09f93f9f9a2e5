"""Do large runs open quickly, and does a step answer at once? The pages' own figures.

Measured on a synthetic run of 2,000 steps x 64 nodes and on 200 small runs, all written by the real
recorder: what the server needs to open a request for replay, and in Chromium the time from opening
the page to the first tree on the screen, 200 presses of an arrow key, and the table of 200 runs.
Why synthetic: size is what is tested here, and decoding 2,000 steps would take minutes. A press is
timed from the key to the end of the frame in which the new step was drawn.

    python benchmarks/pages.py               # about a minute; needs playwright and Chromium
    python benchmarks/pages.py --no-browser  # the server's part alone

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "view")]

STEPS, NODES, SMALL_RUNS, PRESSES = 2_000, 64, 200, 200
#: what the project set out to hold, in milliseconds
GOALS = {
    "replay opens, page at hand": 2_000.0,
    "arrow press, median": 50.0,
    "arrow press, 95th percentile": 50.0,
    "table of runs, frame": 1_000.0,
    "table of runs, page at hand": 1_000.0,
}

_TREE = ".replay .scene .node.root"
_TABLE = """import streamlit as st
from pages.parts.run_picker import pick_runs
st.set_page_config(layout="wide")
pick_runs("many")
"""
_PRESS = """async (presses) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  const key = { key: "ArrowRight", bubbles: true, composed: true };
  const spent = [];
  for (let n = 0; n < presses; n++) {
    const begun = performance.now();
    document.body.dispatchEvent(new KeyboardEvent("keydown", key));
    const handled = performance.now();
    await frame();
    spent.push([handled - begun, performance.now() - begun]);
  }
  return spent;
}"""


def main() -> int:
    """Make the runs, measure, print; returns 0 where every goal is held."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        large = _make_runs(Path(folder), arguments)
        found = _server(Path(folder), large)
        if not arguments.no_browser:
            found |= _browser(folder, large, arguments.presses)
    held = _print(found)
    settings = {"steps": arguments.steps, "nodes": arguments.nodes, "runs": arguments.runs}
    print(json.dumps({"benchmark": "workbench", **settings, "ms": found, "held": held}))
    return 0 if held else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the large run")
    parser.add_argument("--nodes", type=int, default=NODES, help="nodes of each of its trees")
    parser.add_argument("--runs", type=int, default=SMALL_RUNS, help="small runs beside it")
    parser.add_argument("--presses", type=int, default=PRESSES, help="arrow keys pressed")
    parser.add_argument("--no-browser", action="store_true", help="measure the server alone")
    return parser.parse_args()


def _make_runs(folder: Path, arguments: argparse.Namespace) -> str:
    from stored_runs import random_steps, store_run

    small = random_steps(4, num_nodes=8)
    for _ in range(arguments.runs):
        store_run(folder, [small], prompt="def small():\n")
    return store_run(folder, [random_steps(arguments.steps, num_nodes=arguments.nodes)])


def _server(folder: Path, large: str) -> dict[str, float]:
    """What the server does, each a median of 5 after a first time that loads libraries."""
    from workbench.store import list_runs
    from workbench.view.replay import Replay, request_choices
    from workbench.view.replay_payload import payload
    from workbench.view.runs_frame import runs_frame

    def opened() -> Replay:
        choice = request_choices(large, folder)[0]
        return Replay(large, choice.request, choice.repeat, folder=folder)

    def first() -> str:
        return json.dumps(payload([opened()], {}, start=0))

    replay = opened()
    have = {"have": [replay.id], "want": {replay.id: []}}
    windows = iter(range(100, 10_000, 50))

    def window() -> str:
        at = next(windows)
        have["want"] = {replay.id: list(range(at, at + 50))}
        return json.dumps(payload([replay], have, start=0))

    return {
        "first answer (facts of all steps, some trees)": _median(first),
        "first answer, KiB": round(len(first()) / 1024, 1),
        "50 more trees": _median(window),
        "table of runs, frame": _median(lambda: runs_frame(list_runs(folder))),
    }


def _median(work: Callable[[], Any], times: int = 5) -> float:
    work()
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        spent.append(1e3 * (time.perf_counter() - begun))
    return round(statistics.median(spent), 1)


def _browser(folder: str, large: str, presses: int) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    table = Path(folder) / "table.py"
    table.write_text(_TABLE, encoding="utf-8")
    with (
        _served(ROOT / "app.py", folder) as app,
        _served(table, folder) as picker,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        # the first visit fills caches of browser and server; people keep the app open
        page.goto(app)
        page.locator(".view .state").wait_for()
        page.goto(f"{app}/replay")
        page.locator(_TREE).wait_for()
        opens = [_open(page, f"{app}/replay?run={large}&step={at}") for at in (700, 1100, 300)]
        page.locator(".replay .head").click()
        thread = page.context.new_cdp_session(page)
        thread.send("Performance.enable", {"timeDomain": "threadTicks"})
        busy = _busy_ms(thread)
        spent = page.evaluate(_PRESS, presses)
        busy = _busy_ms(thread) - busy
        at = page.locator(".where").inner_text()
        assert at.startswith(f"step {300 + presses} "), at
        shown = _median(lambda: _show_table(page, picker), 3)
        chromium.close()
    drawn = sorted(both[1] for both in spent)
    return {
        "replay opens, page at hand": round(statistics.median(opens), 1),
        "arrow press, handler": round(statistics.median(both[0] for both in spent), 1),
        "arrow press, page's own CPU time, mean": round(busy / presses, 1),
        "arrow press, median": round(statistics.median(drawn), 1),
        "arrow press, 95th percentile": round(drawn[int(0.95 * len(drawn))], 1),
        "arrow press, longest": round(drawn[-1], 1),
        "table of runs, page at hand": shown,
    }


def _busy_ms(thread: Any) -> float:
    """CPU time of the page's thread: what a press costs whatever else the machine does."""
    metrics = thread.send("Performance.getMetrics")["metrics"]
    return next(1e3 * entry["value"] for entry in metrics if entry["name"] == "TaskDuration")


def _open(page: Any, address: str) -> float:
    """Milliseconds from the address to the first tree on the screen, Streamlit's start included."""
    page.goto("about:blank")
    begun = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator(_TREE).wait_for()
    return 1e3 * (time.perf_counter() - begun)


def _show_table(page: Any, address: str) -> None:
    page.goto(address, wait_until="commit")
    page.locator("[data-testid=stDataFrame] canvas").first.wait_for()


@contextmanager
def _served(script: Path, folder: str) -> Iterator[str]:
    """A script on a free port, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port),
         "--server.headless", "true"],
        cwd=ROOT, env=os.environ | {"DRAFTREE_RUNS": folder, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server did not start.")


def _print(found: dict[str, float]) -> bool:
    held = True
    for name, value in found.items():
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"goal {goal:g}: {'held' if value <= goal else 'MISSED'}"
        held = held and (goal is None or value <= goal)
        unit = "" if name.endswith("KiB") else " ms"
        print(f"{name:<48} {value:>9.1f}{unit:<3}  {verdict}")
    return held


if __name__ == "__main__":
    sys.exit(main())
