"""Verification: which path of a draft tree survives, and the token after it.

The rules and why each is lossless: docs/methods.md. Randomness is an argument everywhere, so the
law of a rule can be enumerated exactly in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.records import Fate, Origin, Verdict
from engine.tree import TokenTree

NOT_TESTED = np.float32(np.nan)


class Choice(NamedTuple):
    """What the target does at one node under rule 1."""

    token: int
    prob_of: Callable[[int], float]  # chance that it would have been a given token


def match(tree: TokenTree, choose: Callable[[int], Choice]) -> Verdict:
    """Rule 1, sample and match: `choose(node)` is the target's own token there.

    Lossless for any children, since what is emitted never depends on them. Siblings of an accepted
    child are rejected: the target's choice was another.
    """
    fate_N, accept_prob_N = untested(tree)
    kids = tree.children_of()
    path, node = [0], 0
    while True:
        choice = choose(node)
        accepted = -1
        for child in kids[node]:
            token = int(tree.tokens_M[child])
            accept_prob_N[child] = choice.prob_of(token)
            if token == choice.token:
                accepted = child
                fate_N[child] = Fate.ACCEPTED
            else:
                fate_N[child] = Fate.REJECTED
        if accepted < 0:
            origin = Origin.CORRECTION if kids[node] else Origin.BONUS
            return Verdict(path, choice.token, origin, fate_N, accept_prob_N)
        node = accepted
        path.append(node)


class ChildTests(NamedTuple):
    """Outcome of testing one node's children in draw order."""

    accept_K: list[float]  # chance that the i-th is accepted, given all before it were rejected
    residual_V: np.ndarray  # law of the target's token if all are rejected


def multi_step(p_V: np.ndarray, q_V: np.ndarray, children_K: Sequence[int]) -> ChildTests:
    """Rule 2, SpecInfer (2305.09781, algorithm 2): children drawn i.i.d. from q.

    Accept x with min(1, p(x)/q(x)), else p <- norm(max(0, p - q)) and try the next.
    """
    residual_V = p_V
    accept = []
    for child in children_K:
        accept.append(_ratio(residual_V[child], q_V[child]))
        residual_V = _residual(residual_V, q_V)
    return ChildTests(accept, residual_V)


def without_replacement(p_V: np.ndarray, q_V: np.ndarray, children_K: Sequence[int]) -> ChildTests:
    """Rule 3, Sequoia (2402.12374, algorithm 2): children drawn from q one by one, none twice.

    As rule 2; after each rejection also q(x) <- 0, renormalised. Once q has no mass left there is
    nothing more to draw and the residual stands.
    """
    residual_V, left_V = p_V, q_V
    accept = []
    for child in children_K:
        accept.append(_ratio(residual_V[child], left_V[child]))
        residual_V = _residual(residual_V, left_V)
        left_V = left_V.copy()
        left_V[child] = 0.0
        mass = left_V.sum()
        if mass <= 0.0:
            break
        left_V /= mass
    return ChildTests(accept, residual_V)


#: (p_V, q_V, children in draw order) -> acceptance chances and what is left of p
NodeRule = Callable[[np.ndarray, np.ndarray, Sequence[int]], ChildTests]
NODE_RULES: dict[str, NodeRule] = {
    "multi-step": multi_step,
    "without-replacement": without_replacement,
}


def accept_or_resample(
    tree: TokenTree,
    rule: NodeRule,
    probs: Callable[[int], np.ndarray],
    accept_uniform: Callable[[int], float],
    token_uniform: Callable[[int], float],
) -> Verdict:
    """Rules 2 and 3 down a tree of SAMPLED children.

    `probs(node)` is the target's p_V there, float64; `accept_uniform(child)` and
    `token_uniform(node)` are uniforms in [0, 1), never used twice. A child passes at u < chance:
    with <= a token of p = 0 would pass at u = 0.
    """
    fate_N, accept_prob_N = untested(tree)
    kids = tree.children_of()
    path, node = [0], 0
    while True:
        p_V = probs(node)
        if not kids[node]:
            token = draw(p_V, token_uniform(node))
            return Verdict(path, token, Origin.BONUS, fate_N, accept_prob_N)
        tests = rule(p_V, tree.draft_probs[node], [int(tree.tokens_M[c]) for c in kids[node]])
        accepted = -1
        for child, chance in zip(kids[node], tests.accept_K, strict=False):
            accept_prob_N[child] = chance
            if accept_uniform(child) < chance:
                accepted = child
                fate_N[child] = Fate.ACCEPTED
                break
            fate_N[child] = Fate.REJECTED
        if accepted < 0:
            token = draw(tests.residual_V, token_uniform(node))
            return Verdict(path, token, Origin.CORRECTION, fate_N, accept_prob_N)
        node = accepted
        path.append(node)


def draw(p_V: np.ndarray, uniform: float) -> int:
    """The token at quantile `uniform` in [0, 1) of p; never one of probability 0."""
    cumulative = np.cumsum(p_V)
    token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(token, int(np.flatnonzero(p_V)[-1]))


def _ratio(p: float, q: float) -> float:
    return 1.0 if p >= q else float(p / q)


def _residual(p_V: np.ndarray, q_V: np.ndarray) -> np.ndarray:
    """norm(max(0, p - q)). No mass left means p = q: the rejection before it had chance 0."""
    rest = np.maximum(p_V - q_V, 0.0)
    mass = rest.sum()
    return rest / mass if mass > 0.0 else p_V


def untested(tree: TokenTree) -> tuple[np.ndarray, np.ndarray]:
    """Fates and acceptance chances (N) of a tree that nobody has looked at."""
    fate_N = np.full(tree.num_nodes, Fate.NOT_REACHED, np.uint8)
    fate_N[0] = Fate.ROOT
    return fate_N, np.full(tree.num_nodes, NOT_TESTED, np.float32)
