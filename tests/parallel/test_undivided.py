"""Methods whose drafting is not divided, on several ranks: tokens of one, and what is said."""

from __future__ import annotations

import pytest

from engine.errors import UserError
from engine.sampling import Sampling
from tests.engine.tiny import decode_all, requests, tokens_of
from tests.parallel.models import engine_on

pytestmark = pytest.mark.slow

SAMPLED = Sampling(0.8, seed=4)
TREE = {"nodes": 6, "depth": 3}
#: method, options, draft models
WITH_DRAFT = [
    ("staged", TREE, 1),
    ("combine", TREE, 1),
    ("universal", {"floor": 0}, 1),
    ("dynamic-tree", TREE, 2),
    ("speculative", {"length": 3}, 3),
]
FROM_INSIDE = [
    ("layer-skip", {"skip": "l1"}),
    ("layer-skip", {"skip": "a1", "policy": "eagle2"}),
    ("early-exit", {"layers": 1}),
    ("early-exit", {"layers": 1, "policy": "eagle2"}),
    ("kangaroo", {}),
    ("medusa", {}),
    ("eagle", {"nodes": 6}),
]


def decoded(method, options, *, num_ranks=1, requests_wanted=3, **how):
    """Tokens by request, steps, and what is said of the ranks."""
    engine = engine_on(num_ranks, "llama", method, options, batch=2, **how)
    try:
        done, steps = decode_all(engine, requests(requests_wanted, max_new_tokens=16))
        rows = engine.parallel.take_lanes() if engine.parallel else []
    finally:
        engine.close()
    known = engine.parallel.description if engine.parallel else {}
    return tokens_of(done), steps, known, rows


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("method", "options", "num_drafts"), WITH_DRAFT)
def test_a_draft_of_its_own_rank_proposes_the_trees_of_one(
    four_ranks, method, options, num_drafts, sampling
):
    how = {"num_drafts": num_drafts, "sampling": sampling}
    tokens, steps, _, _ = decoded(method, options, **how)
    assert any(step.tree.num_drafted for step in steps)
    others, their_steps, known, rows = decoded(method, options, num_ranks=4, placement="own", **how)
    assert others == tokens
    for step, other in zip(steps, their_steps, strict=True):
        assert (step.tree.tokens_M == other.tree.tokens_M).all()
        assert (step.tree.parents_M == other.tree.parents_M).all()
        assert (step.tree.source_M == other.tree.source_M).all()
    on = list(range(1, 1 + num_drafts))
    assert (known["target"], known["draft"]) == ([0], on)
    assert {row.rank for row in rows if row.what == "expand"} == set(on)
    if num_drafts == 1:
        assert known["note"].startswith(f"Drafting was not divided: {method} drafts on one rank")
        assert known["note"].endswith("Ranks 2, 3 had nothing to do.")


@pytest.mark.parametrize(("method", "options", "num_drafts"), WITH_DRAFT)
def test_a_target_that_is_cut_has_its_draft_on_one_rank(four_ranks, method, options, num_drafts):
    tokens, _, _, _ = decoded(method, options, num_drafts=num_drafts)
    for how in ({"divided": "target"}, {"divided": "both", "placement": "split"}):
        num_ranks = 2 if "placement" not in how else 4
        others, _, known, _ = decoded(
            method, options, num_drafts=num_drafts, num_ranks=num_ranks, **how
        )
        assert others == tokens
        assert known["target"] == [0, 1] or num_drafts > 1


def test_merged_drafts_are_shared_out_beside_the_target(four_ranks):
    tokens, _, _, _ = decoded("dynamic-tree", TREE, num_drafts=3)
    others, _, known, rows = decoded("dynamic-tree", TREE, num_drafts=3, num_ranks=2)
    assert others == tokens
    assert (known["target"], known["draft"]) == ([0], [0, 1])
    assert known["note"] == "Draft models were on a rank each, whole."
    expands = [row.rank for row in rows if row.what == "expand"]
    assert expands.count(0) == 2 * expands.count(1), "two of three are on rank 0"


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("method", "options"), FROM_INSIDE)
def test_parts_of_a_target_that_is_cut_draft(four_ranks, method, options, sampling):
    tokens, steps, _, _ = decoded(method, options, sampling=sampling)
    assert any(step.tree.num_drafted for step in steps)
    others, _, known, rows = decoded(
        method, options, num_ranks=2, divided="target", sampling=sampling
    )
    assert others == tokens
    assert known["target"] == [0, 1]
    if method in ("layer-skip", "early-exit", "kangaroo"):
        assert {row.rank for row in rows if row.what == "expand"} == {0, 1}


def test_what_one_rank_refuses_is_said_once_and_leaves_the_others_in_step(four_ranks, tmp_path):
    how = {"num_ranks": 4, "placement": "own"}
    with pytest.raises(UserError, match="holds no n-gram model"):
        decoded("staged", TREE | {"model": str(tmp_path)}, **how)
    tokens, _, _, _ = decoded("staged", TREE)
    assert decoded("staged", TREE, **how)[0] == tokens


def test_policy_auto_beside_a_target_that_is_cut(four_ranks):
    tokens, _, _, _ = decoded("dynamic-tree", {"policy": "auto"})
    others, _, known, _ = decoded("dynamic-tree", {"policy": "auto"}, num_ranks=2, divided="both")
    assert others == tokens
    assert known["note"].startswith("Drafting was not divided: policy auto weighs times")
