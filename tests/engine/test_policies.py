"""Growth policies on a mock draft with known probabilities: no weights, exact expectations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.drafters.dynamic_tree import Options
from engine.drafters.policies import POLICIES
from engine.growth import Chooser, Growth, Noise, Row, logsumexp, top_k, top_k_compiled
from engine.sampling import Sampling
from engine.tree import Children

V = 12


class MockDraft:
    """Next-token logits that depend on the last two tokens alone."""

    def __init__(self, seed: int, sharpness: float = 2.5) -> None:
        rng = np.random.default_rng(seed)
        self.table = (rng.normal(size=(V, V, V)) * sharpness).astype(np.float32)

    def logits(self, path: list[int]) -> np.ndarray:
        return self.table[path[-2] if len(path) > 1 else 0, path[-1]]


def run(policy: str, draft: MockDraft, options: Options, *, kind=Children.FIXED, seed=0, depth=99):
    """Grow one tree; returns the growth, the kept nodes and the number of expanded ones."""
    growth = Growth([3])
    sampling = Sampling(temperature=0.9, seed=seed)
    noise = Noise(sampling, request=0, vocab_size=V)
    chooser = Chooser(kind, sampling, noise, position=5, with_replacement=False)
    chosen = POLICIES[policy].sampled if kind is Children.SAMPLED else POLICIES[policy].grow
    policy_run = chosen(options, growth, chooser, min(depth, options.depth))
    expanded = 0
    nodes = next(policy_run)
    while True:
        growth.passes += 1
        growth.round += 1
        expanded += len(nodes)
        assert all(growth.num_children[n] == 0 for n in nodes), "a node expanded twice"
        logits = [draft.logits(path_tokens(growth, n)) for n in nodes]
        rows = [Row(row, logsumexp(row)) for row in logits]
        try:
            nodes = policy_run.send(rows)
        except StopIteration as stop:
            return growth, stop.value, expanded


def path_tokens(growth: Growth, node: int) -> list[int]:
    path = []
    while node >= 0:
        path.append(growth.tokens[node])
        node = growth.parents[node]
    return path[::-1]


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("kind", [Children.FIXED, Children.COUPLED])
def test_every_policy_keeps_its_bounds(policy, kind):
    for seed in range(12):
        options = Options(policy=policy, nodes=9, depth=4, top_k=3, rounds=3)
        growth, kept, expanded = run(policy, MockDraft(seed), options, kind=kind, seed=seed)
        tree, _ = growth.finish(kind, kept)
        tree.check_integrity()
        assert tree.num_drafted <= 9
        assert tree.depth_M.max() <= 4
        assert expanded <= POLICIES[policy].max_expanded(options)
        assert growth.passes <= 4


@pytest.mark.parametrize("policy", list(POLICIES))
def test_useful_depth_is_not_exceeded(policy):
    growth, _, _ = run(policy, MockDraft(1), Options(policy=policy, nodes=20, depth=8), depth=2)
    assert max(growth.depth) <= 2


def best_paths(draft: MockDraft, count: int, depth: int) -> list[float]:
    """The `count` best path log-probabilities over all paths, by brute force."""
    scores, level = [], [([3], 0.0)]
    for _ in range(depth):
        following = []
        for path, score in level:
            logits = draft.logits(path).astype(np.float64)
            logprobs = logits - np.log(np.exp(logits).sum())
            following += [([*path, t], score + logprobs[t]) for t in range(V)]
        level = following
        scores += [score for _, score in level]
    return sorted(scores, reverse=True)[:count]


@pytest.mark.parametrize("policy", ["best-first", "opt-tree", "eagle2", "grow-and-prune"])
def test_with_room_enough_the_best_tree_is_found(policy):
    """Nothing bounds them but the node budget: all must keep the n best paths there are."""
    for seed in range(6):
        draft = MockDraft(seed)
        options = Options(
            policy=policy, nodes=7, depth=3, top_k=V, width=V * V, threshold=0.0, rounds=3
        )
        growth, kept, _ = run(policy, draft, options)
        found = sorted((growth.path_score[n] for n in kept), reverse=True)
        np.testing.assert_allclose(found, best_paths(draft, 7, 3), atol=1e-4)


def test_best_first_stops_drafting_once_nothing_can_enter():
    sure = MockDraft(0, sharpness=0.0)
    sure.table[:, :, :2] = 8.0  # two certain choices everywhere
    growth, _, _ = run("best-first", sure, Options(policy="best-first", nodes=2, depth=6, top_k=2))
    assert growth.passes == 1, "children of the two kept nodes could not score above them"


def test_opt_tree_stops_when_little_is_gained():
    flat = MockDraft(0, sharpness=0.0)
    growth, _, _ = run(
        "opt-tree", flat, Options(policy="opt-tree", nodes=9, depth=6, top_k=3, threshold=0.2)
    )
    assert growth.passes == 2


def test_sampled_growth_never_drops_a_draw():
    for seed in range(20):
        options = Options(policy="best-first", nodes=8, depth=4, top_k=4)
        growth, kept, expanded = run(
            "best-first", MockDraft(seed), options, kind=Children.SAMPLED, seed=seed
        )
        assert kept is None
        assert len(growth) - 1 <= 8
        assert expanded <= POLICIES["best-first"].max_expanded(options)
        tree, _ = growth.finish(Children.SAMPLED, kept)
        tree.check_integrity()
        for node, kids in enumerate(tree.children_of()):
            assert (node in tree.draft_probs) == bool(kids)
            # drawn without replacement, and a prefix of the node's own sequence of draws
            tokens = [int(tree.tokens_M[kid]) for kid in kids]
            assert len(set(tokens)) == len(tokens)
            assert [int(tree.rank_M[kid]) for kid in kids] == list(range(len(kids)))


def test_coupled_children_are_the_likelier_matches():
    """Where draft and target agree, the first coupled child is always the target's choice."""
    draft = MockDraft(2)
    for seed in range(30):
        growth, _, _ = run(
            "eagle2", draft, Options(nodes=6, depth=3), kind=Children.COUPLED, seed=seed
        )
        sampling = Sampling(temperature=0.9, seed=seed)
        noise = Noise(sampling, request=0, vocab_size=V)
        logits = draft.logits([3]).astype(np.float64) / 0.9
        assert growth.tokens[1] == int(np.argmax(logits + noise.at(5)))


def test_top_k_breaks_ties_by_id_and_normalises():
    scores = np.array([0.0, 1.0, 1.0, -np.inf])
    tokens, logprobs = top_k(scores, 3, logsumexp(scores))
    assert tokens.tolist() == [1, 2, 0]
    assert math.exp(logprobs[0]) == pytest.approx(math.e / (1 + 2 * math.e))


@pytest.mark.parametrize("count", [2, 4, 12])
@pytest.mark.parametrize("find", [top_k, top_k_compiled])
def test_a_token_is_no_child_twice_where_the_others_are_cut(find, count):
    scores = np.full(12, -np.inf)
    scores[0] = 1.0
    assert find(scores, count, 1.0)[0].tolist() == [0]


def test_pruned_nodes_stay_for_the_viewer_with_parents_shown():
    growth, kept, _ = run("eagle2", MockDraft(3), Options(nodes=4, depth=4, top_k=4))
    tree, _ = growth.finish(Children.FIXED, kept)
    assert tree.num_nodes == 5
    assert len(tree.tokens_M) > tree.num_nodes
    assert (tree.round_pruned_M[tree.num_nodes :] > 0).all()
    tree.check_integrity()
