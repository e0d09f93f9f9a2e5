"""A real Chromium on a real Streamlit server, on a free port of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser.servers import Server, end_servers, start_server


@pytest.fixture(scope="session")
def window(chromium) -> Iterator:
    """One for all tests: it keeps the scripts that Streamlit's page consists of."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(120_000)
    yield context
    context.close()


@pytest.fixture
def blank_page(window) -> Iterator[Callable]:
    """Opens empty pages that must not raise in JavaScript."""
    pages: list = []
    errors: list[str] = []

    def open_page():
        page = window.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield open_page
    for page in pages:
        page.close()
    window.set_offline(False)
    assert not errors


@pytest.fixture
def new_page(blank_page: Callable) -> Callable:
    """Opens the app on its first page."""

    def open_page(url: str):
        page = blank_page()
        page.goto(url)
        page.get_by_role("button", name="Run", exact=True).wait_for()
        page.locator(".view .state").wait_for()
        return page

    return open_page


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """Starts `streamlit run SCRIPT` with more environment; ends it after the module."""
    yield from _serving(tmp_path_factory)


@pytest.fixture
def serve_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """The same for one test."""
    yield from _serving(tmp_path_factory)


def _serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    servers: list[Server] = []

    def start(script: str, **environment: str) -> str:
        log = tmp_path_factory.mktemp("server") / "log.txt"
        servers.append(start_server(script, log, environment))
        return servers[-1].url

    yield start
    end_servers(servers)
