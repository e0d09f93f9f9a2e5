"""Block and traversal verification: exact law by enumeration, mutants, how far they get."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

import engine.verify as verify
import engine.verify_paths as paths
from engine.records import Fate, Origin, Verdict
from engine.tree import Children, TokenTree, tree_from_lists
from tests.engine.test_law import Script, Uniform, branches

V, LEVELS = 3, 3
RNG = np.random.default_rng(5)
PATHS = [path for size in range(LEVELS + 1) for path in product(range(V), repeat=size)]
P = {path: RNG.dirichlet(np.ones(V)) for path in PATHS}
Q = {path: RNG.dirichlet(np.ones(V)) for path in PATHS}
P[1,] = np.array([0.0, 0.3, 0.7])  # a token the target never emits
Q[0, 1] = np.array([0.6, 0.4, 0.0])  # and one the draft never proposes

Judge = Callable[[TokenTree, Callable, Callable, Callable], Verdict]


def drawn(
    script: Script, counts: tuple[int, ...], *, replacement: bool, least: float = 0.0
) -> TokenTree:
    """A tree of drawn children: counts[d] under every node at depth d.

    Nothing hangs under a token that the draft gave less than `least`.
    """
    tokens, parents, probs = [0], [-1], {}
    level: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for count in counts:
        below = []
        for node, path in level:
            q = Q[path].copy()
            probs[node] = Q[path]
            for _ in range(count):
                if q.sum() <= 0:
                    break
                token = script.pick(list(q / q.sum()))
                if not replacement:
                    q[token] = 0.0
                tokens.append(token)
                parents.append(node)
                if Q[path][token] >= least:
                    below.append((len(tokens) - 1, (*path, token)))
        level = below
    tree = tree_from_lists(tokens, parents, [0.0] * len(tokens), children=Children.SAMPLED)
    tree.draft_probs = probs
    return tree


def law(
    monkeypatch,
    judge: Judge,
    counts: tuple[int, ...],
    *,
    replacement: bool,
    least: float = 0.0,
) -> tuple[np.ndarray, float]:
    """Exact joint law of the next LEVELS tokens, and the expected number of accepted ones."""
    for module in (verify, paths):
        monkeypatch.setattr(module, "draw", lambda p_V, script: script.pick(list(p_V)))
    joint, accepted = np.zeros((V,) * LEVELS), 0.0

    def run(script: Script) -> tuple[tuple[int, ...], int]:
        tree = drawn(script, counts, replacement=replacement, least=least)

        def probs(node: int) -> np.ndarray:
            path = tuple(int(tree.tokens_M[n]) for n in tree.path_to(node)[1:])
            return P[path]

        verdict = judge(tree, probs, lambda node: Uniform(script), lambda node: script)
        emitted = [int(tree.tokens_M[n]) for n in verdict.path_A[1:]] + [verdict.next_token]
        while len(emitted) < LEVELS:  # later steps have the target's own law
            emitted.append(script.pick(list(P[tuple(emitted)])))
        return tuple(emitted[:LEVELS]), verdict.num_accepted

    for (tokens, count), weight in branches(run):
        joint[tokens] += weight
        accepted += weight * count
    return joint, accepted


TRUTH = np.zeros((V,) * LEVELS)
for tokens in product(range(V), repeat=LEVELS):
    TRUTH[tokens] = np.prod([P[tokens[:at]][tokens[at]] for at in range(LEVELS)])
CHAINS = [(1,), (1, 1), (1, 1, 1)]
SHAPES = [*CHAINS, (2,), (3,), (2, 1), (1, 2), (2, 2), (1, 2, 1)]


def traversal_with(replacement: bool) -> Judge:
    return lambda *arguments: paths.traversal(*arguments, with_replacement=replacement)


@pytest.mark.parametrize("counts", CHAINS)
def test_block_has_the_targets_law(monkeypatch, counts):
    found, _ = law(monkeypatch, paths.block, counts, replacement=True)
    np.testing.assert_allclose(found, TRUTH, atol=1e-12)


@pytest.mark.parametrize("least", [0.2, 0.4])
@pytest.mark.parametrize("judge", [paths.block, paths.traversal])
def test_where_a_chain_ends_may_depend_on_what_was_drawn(monkeypatch, judge, least):
    """Drafting that stops where it is unsure: Kangaroo's second exit, the adaptive exit."""
    found, accepted = law(monkeypatch, judge, (1, 1, 1), replacement=True, least=least)
    np.testing.assert_allclose(found, TRUTH, atol=1e-12)
    whole = law(monkeypatch, judge, (1, 1, 1), replacement=True)[1]
    assert law(monkeypatch, judge, (1,), replacement=True)[1] < accepted < whole


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("counts", SHAPES)
def test_traversal_has_the_targets_law(monkeypatch, counts, replacement):
    judge = traversal_with(replacement)
    found, _ = law(monkeypatch, judge, counts, replacement=replacement)
    np.testing.assert_allclose(found, TRUTH, atol=1e-12)


@pytest.mark.parametrize("counts", CHAINS)
def test_on_chains_traversal_is_block(monkeypatch, counts):
    one = law(monkeypatch, paths.block, counts, replacement=True)[1]
    other = law(monkeypatch, paths.traversal, counts, replacement=True)[1]
    assert one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "replacement"), [(verify.multi_step, True), (verify.without_replacement, False)]
)
@pytest.mark.parametrize("counts", SHAPES)
def test_traversal_accepts_at_least_as_much(monkeypatch, counts, rule, replacement):
    node_by_node = law(
        monkeypatch,
        lambda tree, *rest: verify.accept_or_resample(tree, rule, *rest),
        counts,
        replacement=replacement,
    )[1]
    whole = law(monkeypatch, traversal_with(replacement), counts, replacement=replacement)[1]
    assert whole >= node_by_node - 1e-12
    if counts in ((1, 1), (1, 1, 1), (2, 1)):
        assert whole > node_by_node + 1e-3, "no gain where the papers have one"


def mutated(monkeypatch, source: str, old: str, new: str) -> Judge:
    """The traversal or block rule with one line changed."""
    import inspect

    function = getattr(paths, source)
    text = inspect.getsource(function)
    assert text.count(old) == 1, f"{old!r} is not one place of {source}"
    space = dict(vars(paths))
    exec(text.replace(old, new), space)

    def judge(*arguments):
        space["draw"] = paths.draw
        return space[source](*arguments)

    return judge


@pytest.mark.parametrize(
    ("source", "old", "new", "counts"),
    [
        ("block", "law = _left_over(weights[kept] * law, tree.draft_probs[kept], law)", "pass",
         (1, 1)),
        ("block", "weights[kept] * law", "law", (1, 1, 1)),
        ("block", "min(1.0, weight * p[token] / q[token])", "min(1.0, p[token] / q[token])",
         (1, 1)),
        ("traversal", "target[node] = left / mass", "pass", (2, 1)),
        ("traversal", "chance[node] = mass / (mass + 1.0 - chance[node])", "pass", (1, 2)),
        ("traversal", "rest[int(tree.tokens_M[rejected])] = 0.0", "pass", (3, 1)),
        ("traversal", "min(1.0, chance[node] * target", "min(1.0, target", (2, 1)),
    ],
)  # fmt: skip
def test_mutants_are_caught(monkeypatch, source, old, new, counts):
    judge = mutated(monkeypatch, source, old, new)
    found, _ = law(monkeypatch, judge, counts, replacement=False)
    assert abs(found - TRUTH).max() > 1e-3


def test_block_refuses_a_tree():
    tree = tree_from_lists([0, 1, 1], [-1, 0, 0], [0.0] * 3, children=Children.SAMPLED)
    with pytest.raises(ValueError, match="traversal"):
        paths.block(tree, lambda n: P[()], lambda n: 0.5, lambda n: 0.5)


def test_typical_keeps_the_longest_path_and_ties_by_likelihood():
    #          root -> 1 (likely) -> 0 (unlikely);  root -> 0 (less likely) -> 1 (likely)
    tree = tree_from_lists([0, 1, 0, 0, 1], [-1, 0, 0, 1, 2], [0.0] * 5)
    laws = {0: [0.3, 0.7], 1: [0.01, 0.99], 2: [0.2, 0.8], 3: [0.5, 0.5], 4: [0.5, 0.5]}
    verdict = paths.typical(tree, lambda node: np.array(laws[node]), lambda node: 1)
    assert verdict.path_A == [0, 2, 4]
    assert verdict.origin is Origin.BONUS
    assert verdict.fate_N[3] == Fate.REJECTED
    laws[1] = [0.4, 0.6]  # now both pass, and 0.7 * 0.4 is likelier than 0.3 * 0.8
    verdict = paths.typical(tree, lambda node: np.array(laws[node]), lambda node: 1)
    assert verdict.path_A == [0, 1, 3]
    assert verdict.fate_N[4] == Fate.NOT_REACHED


def test_typical_is_another_law():
    """What makes it lossy: a likely enough token passes always, whatever its probability."""
    tree = tree_from_lists([0, 1], [-1, 0], [0.0, 0.0])
    verdict = paths.typical(tree, lambda node: np.array([0.6, 0.4]), lambda node: 0)
    assert verdict.path_A == [0, 1], "the target itself takes it in 2 of 5 cases"
    assert verdict.accept_prob_N[1] == 1.0


def test_the_thresholds_of_typical_decide():
    tree = tree_from_lists([0, 1], [-1, 0], [0.0, 0.0])
    certain = {"probs": lambda node: np.array([0.96, 0.04]), "choose": lambda node: 0}
    least = 0.04  # both thresholds lie above it by default
    assert paths.typical(tree, **certain).path_A == [0]
    for settings in (paths.Typical(epsilon=least / 2), paths.Typical(alpha=least / 2)):
        assert paths.typical(tree, **certain, settings=settings).path_A == [0, 1]
