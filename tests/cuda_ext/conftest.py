"""Twins and kernels by the same tests.

Kernels run in Numba's simulator, which the tests' root conftest asks for before Numba is imported.
On a machine with a GPU, `NUMBA_ENABLE_CUDASIM=0 pytest tests/cuda_ext` runs them on it instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from cuda_ext import memory
from tests.cuda_ext.cases import real_device


@pytest.fixture(
    params=["twin", "kernel"],
)
def how(request: pytest.FixtureRequest) -> str:
    """The form that runs over host memory; kernels only where the simulator is on."""
    if request.param == "kernel" and not memory.SIMULATED:
        pytest.skip("kernels over host memory need the simulator: NUMBA_ENABLE_CUDASIM=1")
    return request.param


@pytest.fixture
def device() -> str:
    """A real GPU, not the simulator."""
    if not real_device():
        pytest.skip("needs a CUDA device, and NUMBA_ENABLE_CUDASIM=0")
    return "cuda"


@pytest.fixture(autouse=True)
def _quick_turns() -> Iterator[None]:
    """The simulator polls its threads in turn: 5 ms for each would be most of the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
