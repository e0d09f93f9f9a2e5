"""Parallel construction on threads: the trees of one rank, node for node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import PENDING_ROWS, ModelDrafter
from engine.growth import Growth, Noise
from engine.parallel.construct import SharedDrafter
from engine.parallel.exchange import Alone
from engine.parallel.lanes import Lanes
from engine.parallel.needs import DIVISIBLE
from engine.parallel.shares import Shares
from engine.records import Origin, Verdict
from engine.registry import METHODS, parse_options
from engine.sampling import Sampling
from engine.tree import Children, TokenTree
from tests.engine.tiny import VOCAB
from tests.parallel.paths import PathRunner, on_ranks, random_walk

STEPS = 6
SLOTS = 2
CASES = [
    ("dynamic-tree", {"policy": "eagle2", "nodes": 24, "depth": 5, "top_k": 5, "width": 4}),
    ("dynamic-tree", {"policy": "eagle2", "nodes": 40, "depth": 6, "top_k": 10, "width": 7}),
    ("dynamic-tree", {"policy": "opt-tree", "nodes": 17, "depth": 6, "top_k": 4}),
    ("dynamic-tree", {"policy": "best-first", "nodes": 30, "depth": 7, "top_k": 3, "width": 5}),
    ("dynamic-tree", {"policy": "grow-and-prune", "nodes": 20, "rounds": 5, "top_k": 3}),
    ("dynamic-tree", {"policy": "eagle2", "exit": 0.5, "nodes": 9, "depth": 6}),
    ("static-tree", {"expansion": "3,2,2,1"}),
    ("static-tree", {"paths": "0;2;0.1;0.3;2.0;0.1.0;2.0.0.0"}),
    ("speculative", {"length": 4}),
]


def drafter(method: str, options: dict, children: Children, exchange: Any = None, **how: Any):
    """A plain drafter over the path runner, or one of several ranks'."""
    parsed = parse_options(method, options)
    most_rows = METHODS[method].max_draft_rows(parsed) + PENDING_ROWS
    context = DrafterContext(
        sampling=Sampling(0.0 if children is Children.FIXED else 0.9, seed=3),
        children=children,
        with_replacement=True,
        draft=PathRunner(SLOTS, max_tree=most_rows),
        target=None,
        vocab_size=VOCAB,
    )
    plain = METHODS[method].build(parsed, context)
    assert isinstance(plain, ModelDrafter)
    if exchange is None:
        return plain
    most = DIVISIBLE[method].most_children(parsed)
    return SharedDrafter(
        plain.grow, parsed, context, exchange=exchange, most_children=most, lanes=Lanes(), **how
    )


def trees_of(one: ModelDrafter, *, seed: int, steps: int = STEPS) -> list[TokenTree]:
    """Trees of two requests whose outcomes are drawn from the trees themselves."""
    sampling = one._context.sampling
    rng = np.random.default_rng(seed)
    sequences = [
        Sequence(
            slot,
            rng.integers(0, VOCAB, 3 + slot).tolist(),
            40 + slot,
            Noise(sampling, request=slot, vocab_size=VOCAB),
        )
        for slot in range(SLOTS)
    ]
    for sequence in sequences:
        one.admit(sequence)
    found = []
    for step in range(steps):
        active = sequences if step % 3 else sequences[:1]  # one sits out now and then
        for sequence, tree in zip(active, one.propose(active), strict=True):
            found.append(tree)
            path = random_walk(tree, seed=seed + sequence.slot, step=step)
            following = (int(tree.tokens_M[path[-1]]) * 7 + step) % VOCAB
            emitted = [int(tree.tokens_M[node]) for node in path[1:]] + [following]
            sequence.tokens += emitted
            sequence.remaining -= len(emitted)
            nothing = np.zeros(0)
            verdict = Verdict(path, following, Origin.BONUS, nothing, nothing)
            one.observe(sequence, tree, verdict, None)
    for sequence in sequences:
        one.release(sequence.slot)
    return found


def assert_same(trees: list[TokenTree], others: list[TokenTree]) -> None:
    assert len(trees) == len(others)
    for one, other in zip(trees, others, strict=True):
        assert one.num_nodes == other.num_nodes
        assert one.draft_passes == other.draft_passes
        for name in ("tokens_M", "parents_M", "depth_M", "rank_M", "draft_logprob_M",
                     "round_added_M", "round_pruned_M", "source_M"):  # fmt: skip
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert one.draft_probs.keys() == other.draft_probs.keys()
        for node, probs_V in one.draft_probs.items():
            assert np.allclose(probs_V, other.draft_probs[node])


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("children", [Children.FIXED, Children.COUPLED])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_every_rank_grows_the_tree_of_one(method, options, children, size):
    plain = trees_of(drafter(method, options, children), seed=5)
    assert max(tree.num_nodes for tree in plain) > 2
    for trees in on_ranks(
        size, lambda place: trees_of(drafter(method, options, children, place), seed=5)
    ):
        assert_same(plain, trees)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dynamic-tree", {"policy": "best-first", "nodes": 14, "depth": 5, "width": 3}),
        ("static-tree", {"expansion": "3,2,1"}),
    ],
)
def test_drawn_children_are_the_same_on_every_rank(method, options):
    plain = trees_of(drafter(method, options, Children.SAMPLED), seed=1)
    for trees in on_ranks(
        3, lambda place: trees_of(drafter(method, options, Children.SAMPLED, place), seed=1)
    ):
        assert_same(plain, trees)


@pytest.mark.parametrize("seed", range(6))
def test_random_shapes_on_random_ranks(seed):
    rng = np.random.default_rng(seed)
    paths = sorted({".".join(map(str, rng.integers(0, 3, rng.integers(1, 6)))) for _ in range(12)})
    options = {"paths": ";".join(paths)}
    size = int(rng.integers(2, 6))
    plain = trees_of(drafter("static-tree", options, Children.FIXED), seed=seed)
    for trees in on_ranks(
        size,
        lambda place: trees_of(drafter("static-tree", options, Children.FIXED, place), seed=seed),
    ):
        assert_same(plain, trees)


def test_ranks_share_the_rows_and_send_picks_only():
    options = {"policy": "eagle2", "nodes": 40, "depth": 6, "top_k": 8, "width": 8}
    plain = drafter("dynamic-tree", options, Children.FIXED)
    trees_of(plain, seed=2)
    alone = sum(plain._runner.passes)
    sent = []

    def work(place):
        one = drafter("dynamic-tree", options, Children.FIXED, place)
        trees_of(one, seed=2)
        sent.append(place.bytes)
        return sum(one._runner.passes)

    rows = on_ranks(4, work)
    assert max(rows) < 0.6 * alone
    passes = len(plain._runner.passes)
    logits_bytes = alone * VOCAB * 4
    assert max(sent) < 2 * passes * SLOTS * 8 * (1 + 3 * 8)
    assert max(sent) < logits_bytes


def chain_growth(depth: int, width: int) -> Growth:
    """A root with one child that has `width` chains below it, `depth` deep."""
    growth = Growth([0])
    (hub,) = growth.add_children(0, np.array([1]), np.array([-0.1]), np.array([-0.1]))
    level = growth.add_children(hub, np.arange(width), np.full(width, -0.1), np.full(width, -0.1))
    for _ in range(depth):
        level = [
            growth.add_children(node, np.array([1]), np.array([-0.1]), np.array([-0.1]))[0]
            for node in level
        ]
    return growth


def test_uneven_shares_are_evened_out_by_moving_subtrees():
    growth = chain_growth(3, 6)
    shares = Shares(2)
    shares.divide(growth, [0])
    first = shares.divide(growth, [1])
    assert [share.expand for share in first] == [[1], []]
    level = [node for node in range(len(growth)) if growth.depth[node] == 2]
    both = shares.divide(growth, level)
    assert sorted(both[0].expand + both[1].expand) == level
    assert len(both[0].run) <= 4
    assert both[1].run[0] == 1, "the path to what moved runs again, before it"
    assert shares.num_moved == len(both[1].expand) > 0
    below = [node for node in range(len(growth)) if growth.depth[node] == 3]
    after = shares.divide(growth, below)
    for rank, share in enumerate(after):
        assert {growth.parents[node] for node in share.expand} <= set(both[rank].expand)
        assert share.run == share.expand, "a subtree that moved stays where it is"


def test_a_subtree_moves_early_where_that_costs_nothing():
    growth = chain_growth(4, 2)
    shares = Shares(2)
    for depth in range(5):
        level = [node for node in range(len(growth)) if growth.depth[node] == depth]
        divided = shares.divide(growth, level)
    assert shares.num_moved == 1
    assert [len(share.run) for share in divided] == [1, 1]


def test_a_move_that_would_lengthen_the_longest_share_is_not_made():
    growth = chain_growth(4, 1)
    for _ in range(2):  # two leaves under a chain that rank 1 never ran
        growth.add_children(len(growth) - 1, np.array([1]), np.array([-0.1]), np.array([-0.1]))
    shares = Shares(2)
    for node in range(len(growth)):
        divided = shares.divide(growth, [node])
    assert shares.num_moved == 0
    assert divided[1].run == []


def test_alone_gathers_what_it_gives():
    assert Alone().all_gather(np.arange(3)).shape == (1, 3)
