"""Bounds against brute force: every assignment of the unknown ranks, on random trees and texts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from engine.shapes import Shape, from_expansion, from_paths
from engine.tree import Children
from workbench.whatif import trees
from workbench.whatif.predict import predict
from workbench.whatif.ranks import NEVER, UNKNOWN, RequestRanks, RunRanks
from workbench.whatif.walk import children_by_rank, node_counts, walk


def request(ranks: list[int], *, limit: int | None = None, **more) -> RequestRanks:
    return RequestRanks(
        request=0, question_id="", num_prompt=3, limit=limit or len(ranks),
        tokens_L=np.arange(len(ranks)), texts_L=["x"] * len(ranks),
        rank_L=np.array(ranks, np.int32), **more,
    )  # fmt: skip


def plainly(shape: Shape, ranks: list[int], limit: int) -> list[int]:
    """Accepted per step, written down from the definition."""
    kids, accepted, at = children_by_rank(shape), [], 0
    while at < len(ranks):
        node, count = 0, 0
        while at + count < len(ranks) and count < limit - at - 1:
            node = kids[node].get(ranks[at + count], -1)
            if node < 0:
                break
            count += 1
        accepted.append(count)
        at += count + 1
    return accepted


@pytest.mark.parametrize("seed", range(25))
def test_bounds_are_met_and_never_broken(seed: int):
    rng = np.random.default_rng(seed)
    paths = [
        ".".join(map(str, rng.integers(0, 3, rng.integers(1, 5))))
        for _ in range(rng.integers(1, 6))
    ]
    shape = from_paths(";".join(paths))
    true = rng.integers(0, 4, 12).tolist()
    unknown = sorted(rng.choice(12, 5, replace=False).tolist())
    excluded = {at: frozenset({int(true[at] + 1) % 4}) for at in unknown[:2]}
    ranks = [UNKNOWN if at in unknown else rank for at, rank in enumerate(true)]
    found = walk(shape, request(ranks, excluded=excluded))
    counts = set()
    for guess in product(range(5), repeat=len(unknown)):  # 4: in no tree
        if any(rank in excluded.get(at, ()) for at, rank in zip(unknown, guess, strict=True)):
            continue
        full = list(ranks)
        for at, rank in zip(unknown, guess, strict=True):
            full[at] = rank
        counts.add(len(plainly(shape, full, 12)))
    assert (found.high.num_steps, found.low.num_steps) == (min(counts), max(counts))
    if found.exact:
        assert found.low.accepted_S == plainly(shape, true, 12)


def test_known_ranks_give_one_course_and_the_limit_cuts_depth():
    shape = from_expansion("1,1,1,1")
    found = walk(shape, request([0, 0, 0, 0, 0, 0]))
    assert found.exact
    assert found.low.accepted_S == [4, 0]  # one token left: nothing is drafted for it
    longer = walk(shape, request([0] * 6, limit=20))  # it ended by EOS
    assert longer.low.accepted_S == [4, 1]


def test_a_token_the_draft_can_never_propose_is_never_accepted():
    shape = from_expansion("3,3")
    assert walk(shape, request([NEVER, NEVER, NEVER])).low.accepted_S == [0, 0, 0]


def test_what_nodes_earn_adds_up_to_what_is_accepted():
    shape = from_expansion("2,2,1")
    ranks = request(np.random.default_rng(3).integers(0, 3, 60).tolist())
    course = walk(shape, ranks).low
    tested, accepted = node_counts(shape, ranks, course)
    assert sum(accepted) == sum(course.accepted_S)
    assert all(a <= t for a, t in zip(accepted, tested, strict=True))
    assert tested[1] == tested[2] == course.num_steps - (course.starts_S[-1] == 59)


def test_prediction_of_a_run_adds_its_requests():
    runs = RunRanks("r", Children.FIXED, "d", [request([0, 1, 0]), request([0, 0, 0, 2])])
    found = predict(from_expansion("1,1"), runs)
    assert [w.low.accepted_S for w in found.walks] == [[1, 0], [2, 0]]
    assert found.low.histogram == [2, 1, 1]
    assert (found.low.steps, found.low.emitted, found.low.kept) == (4, 7, 7)
    assert found.step is None
    assert found.speedup(found.low) is None


@pytest.mark.parametrize("text", ["0", "0.0;1", "1;3.0", "0.0.0;0.1;1.0;2"])
def test_paths_text_is_a_way_there_and_back(text: str):
    shape = from_paths(text)
    assert from_paths(trees.paths_text(shape)) == shape
    assert trees.shape_from([[int(r) for r in p.split(".")] for p in text.split(";")]) == shape
