"""Measured steps of tiny models, and costs that are easy to reckon with."""

from __future__ import annotations

from functools import cache

from engine.costs import PairCost, PassCost
from engine.serving.simulate.acceptance import MeasuredSteps
from engine.serving.simulate.costs import Around, MeasuredCosts
from tests.engine.tiny import decode_all, engine_for, near, requests, tiny

#: what a pass takes: 10 ms and 1 per node, 1 ms and 0.1 per node
PAIR = PairCost(
    PassCost((1, 33, 65), (1, 2), ((11.0, 43.0, 75.0), (11.0, 43.0, 75.0))),
    PassCost((1, 33, 65), (1, 2), ((1.1, 4.3, 7.5), (1.1, 4.3, 7.5))),
)
NOTHING_AROUND = Around((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0))


@cache
def wide_run():
    """Records of wide trees of tiny models, with the pair that made them."""
    target = tiny()
    draft = near(target)
    engine = engine_for(
        "dynamic-tree", {"policy": "best-first", "nodes": 24, "depth": 5, "top_k": 4}, target, draft
    )
    return target, draft, decode_all(engine, requests(5, max_new_tokens=80))[1]


@cache
def measured() -> MeasuredSteps:
    return MeasuredSteps.from_steps(wide_run()[2])


def costs(**around) -> MeasuredCosts:
    return MeasuredCosts(PAIR, NOTHING_AROUND._replace(**around))
