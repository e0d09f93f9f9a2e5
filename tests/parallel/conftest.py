"""Four ranks for all tests here: starting them takes longer than using them."""

from __future__ import annotations

import pytest

from engine.parallel.group import close_group, group_of


@pytest.fixture(scope="module")
def four_ranks():
    group = group_of(4, device="cpu", threads=1)
    yield group
    close_group()
