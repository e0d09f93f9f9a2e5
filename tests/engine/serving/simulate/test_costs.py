"""Costs of batches from tables and from ticks."""

from __future__ import annotations

import numpy as np
import pytest

from engine.costs import PairCost, PassCost
from engine.serving.simulate.costs import Around, MeasuredCosts, fit
from engine.serving.simulate.fleet import Load
from engine.serving.simulate.replay import replay
from engine.serving.simulate.shapes import Dynamic
from tests.engine.serving.simulate.known import NOTHING_AROUND, PAIR, costs, measured
from tests.engine.serving.simulate.test_simulation import model, rows


def test_passes_are_those_of_the_tables_and_what_is_around_them():
    around = Around((2.0, 0.5, 2.0), (0.2, 0.1, 3.0), (1.0, 0.25, 0.01), (4.0, 0.5))
    found = MeasuredCosts(PAIR, around)
    assert found.score_ms(np.array([1, 9]), 4, 100.0) == pytest.approx([2 + 2 + 22, 2 + 2 + 38])
    assert found.score_ms(np.array([500]), 4, 100.0) == pytest.approx([2 + 2 + 2 * 510])
    assert found.draft_ms([1, 3], 2, 100.0) == pytest.approx(2 * 0.4 + 3 * (1.1 + 1.3))
    assert found.draft_ms([], 2, 100.0) == 0.0
    assert found.rest_ms(4, 10) == pytest.approx(2.1)
    assert found.prefill_ms(10) == pytest.approx(9.0)


def test_a_fit_finds_what_made_the_ticks():
    """Ticks of a simulated run give back the coefficients that it was simulated with."""
    made = costs(
        score=(0.7, 0.2, 1.1), draft=(0.3, 0.05, 1.4), rest=(0.4, 0.15, 0.02), prefill=(2.0, 0.3)
    )
    shape = Dynamic(measured(), nodes=6, depth=3, width=2)
    load = Load.poisson(60, rate=6.0, seed=1, prompt=(2, 30), tokens=(3, 50))
    told = replay(rows(load), model(shape, made), num_slots=6, capacity=128)
    found = fit(
        PAIR, told.ticks, told.arrivals, context=30.0,
        draft_rows=lambda batch: [batch, 2 * batch, 2 * batch],
    )  # fmt: skip
    assert found.prefill == pytest.approx((2.0, 0.3), rel=1e-3)
    again = MeasuredCosts(PAIR, found)
    for batch, nodes in ((1, 4), (3, 15), (6, 36)):
        for part in ("score", "draft", "rest"):
            values = [_part(one, part, batch, nodes) for one in (made, again)]
            assert values[1] == pytest.approx(values[0], rel=0.02), (part, batch)


#: measured over four slots: 8 ms by the slot and 0.5 by the row
BY_SLOT = PairCost(
    PassCost(tuple(range(1, 65)), (1,), (tuple(8.0 * min(n, 4) + 0.5 * n for n in range(1, 65)),)),
    PAIR.draft,
)


def test_slots_cost_what_there_is_to_look_at_and_nodes_their_row():
    found = MeasuredCosts(BY_SLOT, NOTHING_AROUND, slots=4)
    scored = [
        float(found.score_ms(np.array([batch + nodes]), batch, 9.0, span=span)[0])
        for batch, nodes, span in ((4, 0, 4), (2, 0, 0), (2, 6, 2), (2, 6, 4), (1, 2, 3))
    ]
    assert scored == pytest.approx([34.0, 17.0, 20.0, 37.0, 9.5])


def test_a_fit_is_as_right_for_small_batches_as_for_large_ones():
    """Also where few steps had one request, took longest by the row, and one was interrupted."""
    made = MeasuredCosts(BY_SLOT, NOTHING_AROUND._replace(score=(3.0, 0.0, 1.2)), slots=4)
    shape = Dynamic(measured(), nodes=6, depth=3, width=2)
    load = Load(np.zeros(16, int), np.full(16, 20), np.tile([40, 40, 40, 50], 4))
    told = replay(rows(load), model(shape, made), num_slots=4, capacity=128)
    tick = told.ticks[5]
    slept = tick.row._replace(end_ns=tick.row.end_ns + 10**9, score_ns=tick.row.score_ns + 10**9)
    found = fit(
        BY_SLOT, [*told.ticks[:5], tick._replace(row=slept), *told.ticks[6:]], told.arrivals,
        context=30.0, draft_rows=lambda batch: [batch, 2 * batch, 2 * batch], slots=4,
    )  # fmt: skip
    again = MeasuredCosts(BY_SLOT, found, slots=4)
    for batch, nodes, span in ((1, 6, 1), (2, 8, 4), (4, 24, 4)):
        values = [
            float(one.score_ms(np.array([batch + nodes]), batch, 30.0, span=span)[0])
            for one in (made, again)
        ]
        assert values[1] == pytest.approx(values[0], rel=0.01)


def _part(one: MeasuredCosts, part: str, batch: int, nodes: int) -> float:
    if part == "score":
        return float(one.score_ms(np.array([batch + nodes]), batch, 30.0)[0])
    if part == "draft":
        return one.draft_ms([batch, 2 * batch, 2 * batch], batch, 30.0)
    return one.rest_ms(batch, nodes)


def test_a_short_run_says_nothing():
    with pytest.raises(ValueError, match="twenty steps"):
        fit(PAIR, [], [], context=10.0, draft_rows=lambda batch: [batch])
