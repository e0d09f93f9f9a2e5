from __future__ import annotations

import numpy as np
import pytest

from engine.serving.fairness import fairness, jain
from engine.serving.trace import ArrivalRow
from tests.engine.serving.mocks import SECOND


def row(request: int, client: str, at: float, admitted: float | None, ended: float, kept: int):
    return ArrivalRow(
        request, client, "", 0, round(at * SECOND), 4, 8,
        admitted_ns=None if admitted is None else round(admitted * SECOND),
        ended_ns=round(ended * SECOND), num_kept=kept,
        reason="refused" if admitted is None else "length",
    )  # fmt: skip


def test_jains_index():
    assert jain([3, 3, 3]) == 1.0
    assert jain([5, 0, 0, 0]) == 0.25
    assert jain([1, 2]) == pytest.approx(9 / 10)
    assert jain([0, 0]) == 1.0


def test_shares_by_client():
    found = fairness([
        row(0, "a", 0, 1, 4, 10),
        row(1, "a", 2, 5, 6, 10),  # overlaps: six seconds in all
        row(2, "a", 10, 10, 12, 20),
        row(3, "b", 0, 0, 2, 10),
        row(4, "b", 3, None, 3, 0),
    ])  # fmt: skip
    a, b = found.clients
    assert (a.client, a.requests, a.refused, a.tokens) == ("a", 3, 0, 40)
    assert a.tokens_per_s == pytest.approx(40 / 8)
    assert a.wait_mean_s == pytest.approx(4 / 3)
    assert a.wait_most_s == pytest.approx(3.0)
    assert (b.refused, b.wait_mean_s) == (1, 0.0)
    assert b.tokens_per_s == pytest.approx(5.0)
    assert found.tokens == pytest.approx(1.0)
    assert found.waits == pytest.approx(jain([1 / (1 + 4 / 3), 1.0]))


def test_a_client_that_was_never_admitted_has_no_wait():
    found = fairness([row(0, "a", 0, None, 0, 0), row(1, "b", 0, 0, 1, 5)])
    assert np.isnan(found.clients[0].wait_mean_s)
    assert found.tokens == 0.5
    assert found.waits == 1.0
