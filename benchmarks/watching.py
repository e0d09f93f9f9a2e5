"""What watching a run live costs it: the same run with and without an open page, in alternation.

Measured: wall time of the run's steps as the worker recorded them. Both arms are started from the
page; in one of them the page stays open and follows live, in the other it is closed as soon as
decoding begins. Decoding is greedy, so both make the same steps, and only steps are compared that
began after the page had closed. The worker is held to one core with one thread, app and browser to
another, so that what is left is what they do to each other through memory and the pipe. Why: a view
that slows down what it shows would falsify it. The goal is at most 3%.

    python benchmarks/watching.py            # about ten minutes
    python benchmarks/watching.py --quick    # two pairs of short runs, to see that it works

The last line is JSON.
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
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from workbench.statistics import Interval, paired_speedup
from workbench.store import RunEntry, list_runs, open_run
from workbench.store.schema import RunStatus

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.03
START_S = 120.0
RUN_S = 900.0
#: after closing, the server needs a moment to let go of the session
SETTLE_S = 1.0
#: share of the steps that must be left to compare
LEAST_LEFT = 0.25
BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update")  # fmt: skip


class Watched(NamedTuple):
    """One run of either arm."""

    run_id: str
    wall_ns: np.ndarray  # of each step
    ended: np.ndarray  # wall clock at the end of each step, seconds
    closed: float | None  # wall clock when the page had closed
    mode: str


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = parse_arguments()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if len(cores) < 2 or chromium is None:
        print("This takes two cores (Linux) and Chromium or Chrome on PATH.", file=sys.stderr)
        return 2
    own, worker_core = cores[0], cores[1]
    os.sched_setaffinity(0, {own})  # what is started from here inherits it: server and browser
    with tempfile.TemporaryDirectory(prefix="draftree-watching-") as scratch:
        runs = Path(scratch)
        with serving(runs) as (url, server), browsing(chromium) as browser:
            run(browser, url, runs, server, worker_core, tokens=300, watch=False)  # loads models
            pairs = []
            for at in range(arguments.pairs):
                arms = {}
                for watch in (True, False) if at % 2 == 0 else (False, True):
                    arms[watch] = run(
                        browser, url, runs, server, worker_core,
                        tokens=arguments.tokens, watch=watch,
                    )  # fmt: skip
                pairs.append((arms[True], arms[False]))
                print(line(at, *pairs[-1]), flush=True)
    found = result(pairs)
    print(sentence(found))
    print(json.dumps(found | {"cores": {"app and browser": own, "worker": worker_core}}))
    return 0


def run(
    browser: Any, url: str, runs: Path, server: int, core: int, *, tokens: int, watch: bool
) -> Watched:
    """One run from a press of Run to its end."""
    before = {entry.run_id for entry in list_runs(runs)}
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(1000 * START_S)
    page.goto(url)
    page.locator(".view .state").wait_for()
    field = page.get_by_role("spinbutton", name="New tokens")
    field.fill(str(tokens))
    field.press("Enter")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".state", has_text="Decoding").wait_for()
    closed = None
    if not watch:
        context.close()
        closed = time.time()
    pin_worker(server, core)
    entry = ended_run(runs, before)
    if watch:
        context.close()
    with open_run(entry.run_id, runs) as stored:
        steps, mode = stored.steps(), stored.info.mode or ""
    begun = datetime.fromisoformat(entry.started).timestamp()
    return Watched(
        entry.run_id,
        steps["wall_ns"].to_numpy(float),
        begun + steps["time_ns"].to_numpy(float) / 1e9,
        closed,
        mode,
    )


def ended_run(runs: Path, before: set[str]) -> RunEntry:
    """The run that is not among those before, once it has ended. Looked for rarely: it is timed."""
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        for entry in list_runs(runs, limit=2):
            if entry.run_id not in before and entry.status is RunStatus.FINISHED:
                return entry
            if entry.run_id not in before and entry.status is not RunStatus.RUNNING:
                raise SystemExit(f"The run ended as {entry.status}: {entry.message}")
        time.sleep(0.5)
    raise SystemExit(f"The run did not end in {RUN_S:.0f} s.")


def pin_worker(server: int, core: int) -> None:
    """Hold the worker to its core, with all its threads; those to come inherit it."""
    for child in psutil.Process(server).children():
        if "workbench.worker_process" in child.cmdline():
            for thread in child.threads():
                os.sched_setaffinity(thread.id, {core})


def compared(watched: Watched, alone: Watched) -> tuple[float, float, int]:
    """Time of the same steps in both arms, in nanoseconds, and how many there are."""
    assert alone.closed is not None
    count = min(len(watched.wall_ns), len(alone.wall_ns))
    first = int(np.searchsorted(alone.ended, alone.closed + SETTLE_S)) + 1
    if count - first < LEAST_LEFT * count:
        raise SystemExit(
            f"Only {max(0, count - first)} of {count} steps came after the page had closed; take "
            "more --tokens."
        )
    return (
        float(watched.wall_ns[first:count].sum()),
        float(alone.wall_ns[first:count].sum()),
        (count - first),
    )


def result(pairs: list[tuple[Watched, Watched]]) -> dict[str, Any]:
    """The cost of watching as a share, with a 95% interval over the pairs."""
    times = [compared(*pair) for pair in pairs]
    watched, alone = np.array([t[0] for t in times]), np.array([t[1] for t in times])
    ratio: Interval = paired_speedup(watched, alone)
    return {
        "benchmark": "watching",
        "cost": round(ratio.value - 1, 5),
        "low": round(ratio.low - 1, 5),
        "high": round(ratio.high - 1, 5),
        "goal": GOAL,
        "goal_is": "met"
        if ratio.high - 1 <= GOAL
        else "missed"
        if ratio.low - 1 > GOAL
        else "open",
        "pairs": [round(float(w / a) - 1, 5) for w, a in zip(watched, alone, strict=True)],
        "steps": [t[2] for t in times],
        "ms_per_step_alone": round(float(alone.sum() / sum(t[2] for t in times)) / 1e6, 3),
        "mode": pairs[0][0].mode,
    }


def line(at: int, watched: Watched, alone: Watched) -> str:
    """A pair in words."""
    with_page, without, count = compared(watched, alone)
    return (
        f"pair {at + 1}: {count} steps, {with_page / 1e6 / count:.2f} ms each with the page open, "
        f"{without / 1e6 / count:.2f} ms without: {100 * (with_page / without - 1):+.1f}%"
    )


def sentence(found: dict[str, Any]) -> str:
    """The verdict with its interval."""
    low, high = 100 * found["low"], 100 * found["high"]
    more = " (the interval holds it; take more --pairs)" if found["goal_is"] == "open" else ""
    return (
        f"Watching costs {100 * found['cost']:+.1f}% [{low:+.1f}, {high:+.1f}] of a step; at most "
        f"{100 * GOAL:.0f}% are wanted: {found['goal_is']}{more}."
    )


@contextmanager
def serving(runs: Path) -> Iterator[tuple[str, int]]:
    """The app on a free port, one thread for what it starts; its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "DRAFTREE_RUNS": str(runs), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    with (runs / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port",
             str(port), "--server.headless", "true"],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_until_up(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield f"http://127.0.0.1:{port}", server.pid
        finally:
            server.terminate()
            server.wait(30)


def wait_until_up(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The app did not start.")


@contextmanager
def browsing(program: str) -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(BROWSER))
        yield browser
        browser.close()


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two pairs of short runs")
    parser.add_argument("--pairs", type=int, help="runs with and without a page [8]")
    parser.add_argument("--tokens", type=int, help="new tokens of each run [1200]")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (2 if arguments.quick else 8)
    arguments.tokens = arguments.tokens or (600 if arguments.quick else 1200)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
