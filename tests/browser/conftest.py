"""A real Chromium on a real Streamlit server, on a free port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STREAMLIT = (sys.executable, "-m", "streamlit", "run")
START_S = 90


@pytest.fixture
def new_page(chromium) -> Iterator[Callable]:
    """Opens pages that must not raise in JavaScript."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(120_000)
    errors: list[str] = []

    def open_page(url: str):
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.get_by_role("button", name="Run", exact=True).wait_for()
        page.locator(".view .state").wait_for()
        return page

    yield open_page
    context.close()
    assert not errors


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """Starts `streamlit run SCRIPT` with more environment; ends what it started."""
    servers: list[subprocess.Popen] = []

    def start(script: str, **environment: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log.txt"
        with log.open("w") as output:
            server = subprocess.Popen(
                [*STREAMLIT, script, "--server.port", str(port), "--server.headless", "true"],
                cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        servers.append(server)
        _wait_until_up(f"http://127.0.0.1:{port}/_stcore/health", server, log)
        return f"http://127.0.0.1:{port}"

    yield start
    for server in servers:
        server.terminate()
        server.wait(30)


def _wait_until_up(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start in {START_S} s:\n{log.read_text()}")
