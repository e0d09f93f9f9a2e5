"""Shared by all tests: one torch thread, one browser, store and cache in folders of their own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import pytest

CHROMIUM_ARGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _simulated_memory_is_shared() -> None:
    """In Numba's simulator two threads that ask for a shared array at once may each get their own.

    A block then waits for ever: its threads read different memory.
    """
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    shared_array = FakeCUDAShared.array

    def array(self, shape, dtype, alignment=None):
        if shape == 0 or not isinstance(dtype, type):
            return shared_array(self, shape, dtype, alignment)
        frame = sys._getframe(1)
        place = frame.f_code.co_filename, frame.f_lineno
        return self._allocations.setdefault(place, np.empty(shape, dtype))

    FakeCUDAShared.array = array


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory):
    """No test touches the runs, profiles or cache of whoever runs it."""
    names = {
        "DRAFTREE_RUNS": "runs",
        "DRAFTREE_CACHE": "cache",
        "DRAFTREE_PROFILES": "profiles",
        "DRAFTREE_SKIPS": "skips",
    }
    before = {name: os.environ.get(name) for name in names}
    for name, folder in names.items():
        os.environ[name] = str(tmp_path_factory.mktemp(folder))
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """Debian's browser. Without one: skipped, or failed where DRAFTREE_REQUIRE_BROWSER=1.

    One for the session: a second `sync_playwright` beside it is refused.
    """
    path = shutil.which("chromium")
    if path is None:
        missing = "no chromium on PATH; install it (apt-get install chromium) to run this test"
        if os.environ.get("DRAFTREE_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS.split())
        yield browser
        browser.close()
