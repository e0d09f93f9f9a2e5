"""The exact law of the rules, by enumeration: every draw, every decision, with its probability.

Decisions come from uniforms, and uniforms are arguments; here they are intervals that split where a
rule compares them, so each run of a rule is one branch with an exact weight. Mutants show that the
test can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations, product

import numpy as np
import pytest

import engine.verify as verify
from engine.tree import Children, TokenTree, tree_from_lists

V = 3
RNG = np.random.default_rng(7)
P = {(): RNG.dirichlet(np.ones(V)), **{(x,): RNG.dirichlet(np.ones(V)) for x in range(V)}}
Q = {(): RNG.dirichlet(np.ones(V)), **{(x,): RNG.dirichlet(np.ones(V)) for x in range(V)}}
P[(1,)] = np.array([0.0, 0.25, 0.75])  # a token the target never emits
Q[(2,)] = np.array([0.5, 0.5, 0.0])  # and one the draft never proposes


class Script:
    """Replays a list of choices; where it runs out, takes the first and notes the alternatives."""

    def __init__(self, choices: list[int]) -> None:
        self.choices, self.at, self.weight = choices, 0, 1.0
        self.open: list[list[int]] = []

    def pick(self, weights: list[float]) -> int:
        possible = [i for i, w in enumerate(weights) if w > 0]
        if self.at == len(self.choices):
            self.open += [[*self.choices[: self.at], other] for other in possible[1:]]
            self.choices = [*self.choices, possible[0]]
        chosen = self.choices[self.at]
        self.at += 1
        self.weight *= weights[chosen]
        return chosen


class Uniform:
    """A uniform on [low, high) that becomes narrower with every comparison."""

    def __init__(self, script: Script) -> None:
        self.script, self.low, self.high = script, 0.0, 1.0

    def __lt__(self, chance: float) -> bool:
        cut = min(max(chance, self.low), self.high)
        size = self.high - self.low
        below = self.script.pick([(cut - self.low) / size, (self.high - cut) / size]) == 0
        self.low, self.high = (self.low, cut) if below else (cut, self.high)
        return below


def branches(run: Callable[[Script], tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], float]]:
    waiting: list[list[int]] = [[]]
    while waiting:
        script = Script(waiting.pop())
        outcome = run(script)
        waiting += script.open
        yield outcome, script.weight


def draft_tree(script: Script, counts: tuple[int, int], *, replacement: bool) -> TokenTree:
    """counts[0] children of the root drawn from q, counts[1] under each of them."""
    tokens, parents, probs = [0], [-1], {}

    def draw_children(node: int, path: tuple[int, ...], count: int) -> list[int]:
        q, added = Q[path].copy(), []
        probs[node] = Q[path]
        for _ in range(count):
            if q.sum() <= 0:
                break
            token = script.pick(list(q / q.sum()))
            if not replacement:
                q[token] = 0.0
            tokens.append(token)
            parents.append(node)
            added.append(len(tokens) - 1)
        return added

    for node in draw_children(0, (), counts[0]):
        draw_children(node, (tokens[node],), counts[1])
    tree = tree_from_lists(tokens, parents, [0.0] * len(tokens), children=Children.SAMPLED)
    tree.draft_probs = probs
    return tree


def law(monkeypatch, rule, counts, *, replacement: bool, shared: bool = False) -> np.ndarray:
    """Exact joint law of the next two tokens (V, V)."""
    monkeypatch.setattr(verify, "draw", lambda p_V, script: script.pick(list(p_V)))
    joint = np.zeros((V, V))

    def run(script: Script) -> tuple[int, ...]:
        tree = draft_tree(script, counts, replacement=replacement)
        one = Uniform(script)

        def probs(node: int) -> np.ndarray:
            path = tuple(int(tree.tokens_M[n]) for n in tree.path_to(node)[1:])
            return P[path] if len(path) < 2 else np.ones(V) / V

        verdict = verify.accept_or_resample(
            tree, rule, probs, lambda child: one if shared else Uniform(script), lambda node: script
        )
        emitted = [int(tree.tokens_M[n]) for n in verdict.path_A[1:]] + [verdict.next_token]
        if len(emitted) == 1:  # the next step samples the second token from p itself
            emitted.append(script.pick(list(P[(emitted[0],)])))
        return tuple(emitted[:2])

    for (first, second), weight in branches(run):
        joint[first, second] += weight
    return joint


TRUTH = np.stack([P[()][x] * P[(x,)] for x in range(V)])
SHAPES = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)]


@pytest.mark.parametrize("counts", SHAPES)
def test_multi_step_has_the_targets_law(monkeypatch, counts):
    np.testing.assert_allclose(
        law(monkeypatch, verify.multi_step, counts, replacement=True), TRUTH, atol=1e-12
    )


@pytest.mark.parametrize("counts", SHAPES)
def test_without_replacement_has_the_targets_law(monkeypatch, counts):
    found = law(monkeypatch, verify.without_replacement, counts, replacement=False)
    np.testing.assert_allclose(found, TRUTH, atol=1e-12)


def no_residual(rule):
    """Mutant: after a rejection the target's own p is sampled again."""
    return lambda p, q, kids: verify.ChildTests(rule(p, q, kids).accept_K, p)


def q_not_updated(p, q, kids):
    """Mutant of rule 3: the drawn token keeps its mass in q."""
    return verify.multi_step(p, q, kids)


def q_not_normalised(p, q, kids):
    """Mutant of rule 3: q loses the token, but its mass is not made up."""
    residual, left, accept = p, q.copy(), []
    for child in kids:
        accept.append(min(1.0, residual[child] / left[child]))
        rest = np.maximum(residual - left, 0)
        residual = rest / rest.sum() if rest.sum() > 0 else p
        left[child] = 0.0
    return verify.ChildTests(accept, residual)


def residual_kept(p, q, kids):
    """Mutant of rule 2: every child is judged by the first p."""
    return verify.ChildTests(
        [min(1.0, p[k] / q[k]) for k in kids], verify.multi_step(p, q, kids).residual_V
    )


@pytest.mark.parametrize(
    ("mutant", "replacement"),
    [(no_residual(verify.multi_step), True), (no_residual(verify.without_replacement), False),
     (q_not_updated, False), (q_not_normalised, False), (residual_kept, True)],
    ids=["rule 2: p again", "rule 3: p again", "q kept", "q not normalised", "p kept"],
)  # fmt: skip
def test_mutants_are_caught(monkeypatch, mutant, replacement):
    found = law(monkeypatch, mutant, (2, 1), replacement=replacement)
    assert abs(found - TRUTH).max() > 1e-3


@pytest.mark.parametrize("rule", [verify.multi_step, verify.without_replacement])
def test_a_uniform_shared_between_decisions_is_caught(monkeypatch, rule):
    replacement = rule is verify.multi_step
    found = law(monkeypatch, rule, (2, 1), replacement=replacement, shared=True)
    assert abs(found - TRUTH).max() > 1e-3


def test_top_k_children_judged_by_rule_2_are_biased(monkeypatch):
    """The trap that makes people think FIXED children and rule 2 go together."""
    p, q = P[()], Q[()]
    best = int(q.argmax())
    tests = verify.multi_step(p, q, [best])
    found = tests.accept_K[0] * np.eye(V)[best] + (1 - tests.accept_K[0]) * tests.residual_V
    assert abs(found - p).max() > 1e-3


def test_one_node_of_any_width_over_random_laws():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 5))
        p, q = rng.dirichlet(np.full(size, 0.5)), rng.dirichlet(np.full(size, 0.5))
        p[rng.random(size) < 0.2] = 0.0
        p = p / p.sum() if p.sum() else np.ones(size) / size
        for width in range(1, size + 1):
            for rule, draws in (
                (verify.multi_step, product(range(size), repeat=width)),
                (verify.without_replacement, permutations(range(size), width)),
            ):
                found = np.zeros(size)
                for kids in draws:
                    weight, left = 1.0, q.copy()
                    for kid in kids:
                        weight *= left[kid]
                        if rule is verify.without_replacement:
                            left[kid] = 0.0
                            left = left / left.sum() if left.sum() > 0 else left
                    if not weight:
                        continue
                    tests = rule(p, q, list(kids))
                    for kid, chance in zip(kids, tests.accept_K, strict=False):
                        found[kid] += weight * chance
                        weight *= 1 - chance
                    found += weight * tests.residual_V
                np.testing.assert_allclose(found, p, atol=1e-10)


def test_a_token_of_probability_zero_never_passes():
    assert verify.draw(np.array([0.0, 0.4, 0.6, 0.0]), 0.0) == 1
    assert verify.draw(np.array([0.0, 0.4, 0.6, 0.0]), np.nextafter(1.0, 0.0)) == 2
    tree = tree_from_lists([0, 0], [-1, 0], [0.0, 0.0], children=Children.SAMPLED)
    tree.draft_probs = {0: np.array([1.0, 0.0])}
    verdict = verify.accept_or_resample(
        tree, verify.multi_step, lambda node: np.array([0.0, 1.0]), lambda c: 0.0, lambda n: 0.0
    )
    assert verdict.path_A == [0]
    assert verdict.next_token == 1
