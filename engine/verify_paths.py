"""Rules that judge whole paths: block and traversal verification, and typical acceptance (lossy).

As in verify.py, randomness is an argument, so that the law of a rule can be enumerated exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from engine.records import Fate, Origin, Verdict
from engine.tree import TokenTree
from engine.verify import draw, untested

Probs = Callable[[int], np.ndarray]
"""The target's p_V after a node, float64."""
Uniform = Callable[[int], float]
"""A uniform in [0, 1) for a node, never used twice."""


def block(
    tree: TokenTree, probs: Probs, accept_uniform: Uniform, token_uniform: Uniform
) -> Verdict:
    """Block verification of a chain (Sun et al., 2403.10444, algorithm 2).

    The chance of a prefix is judged as a whole: p_i = min(1, p_{i-1} p(x_i)/q(x_i)). The longest
    prefix whose own decision passes is kept; below it, max(0, p_i p - q) is what is left.
    """
    fate_N, accept_prob_N = untested(tree)
    last = tree.num_nodes - 1
    if (tree.parents_M[1 : last + 1] != np.arange(last)).any():
        raise ValueError("block verification is for chains; a tree wants traversal")
    weight, weights, kept = 1.0, [1.0], 0
    for node in range(1, last + 1):
        p, q = probs(node - 1), tree.draft_probs[node - 1]
        token = int(tree.tokens_M[node])
        weight = min(1.0, weight * p[token] / q[token])
        weights.append(weight)
        chance = weight
        if node < last:
            left = np.maximum(weight * probs(node) - tree.draft_probs[node], 0.0).sum()
            chance = left / (left + 1.0 - weight) if left > 0.0 else 0.0
        accept_prob_N[node] = chance
        if accept_uniform(node) < chance:
            kept = node
    fate_N[1 : kept + 1] = Fate.ACCEPTED
    fate_N[kept + 1 :] = Fate.REJECTED
    law = probs(kept)
    if kept < last:
        law = _left_over(weights[kept] * law, tree.draft_probs[kept], law)
    origin = Origin.BONUS if kept == last else Origin.CORRECTION
    token = draw(law, token_uniform(kept))
    return Verdict(list(range(kept + 1)), token, origin, fate_N, accept_prob_N)


def traversal(
    tree: TokenTree,
    probs: Probs,
    accept_uniform: Uniform,
    token_uniform: Uniform,
    *,
    with_replacement: bool = False,
) -> Verdict:
    """Traversal verification of a tree of SAMPLED children (Weng et al., 2505.12398, algorithm 1).

    From the first leaf upwards: a path is judged by the chance of all of it; a rejected leaf leaves
    max(0, a p - q) to its parent, whose next child is tried, and which is judged as a leaf itself
    once none is left. On chains this is `block`.
    """
    fate_N, accept_prob_N = untested(tree)
    kids = [iter(children) for children in tree.children_of()]
    has_kids = [bool(children) for children in tree.children_of()]
    chance = {0: 1.0}  # a: of the path to each open node, given what was rejected below it
    target: dict[int, np.ndarray] = {}  # p and q of open nodes, given the same
    draft: dict[int, np.ndarray] = {}
    node = 0
    while True:
        if node not in target:
            target[node] = probs(node)
            if has_kids[node]:
                draft[node] = tree.draft_probs[node]
        child = next(kids[node], None)
        if child is not None:
            token = int(tree.tokens_M[child])
            chance[child] = min(1.0, chance[node] * target[node][token] / draft[node][token])
            node = child
            continue
        if node:
            accept_prob_N[node] = chance[node]
        if not node or accept_uniform(node) < chance[node]:
            break
        fate_N[node] = Fate.REJECTED
        rejected, node = node, int(tree.parents_M[node])
        whole = target[node]
        left = np.maximum(chance[node] * whole - draft[node], 0.0)
        mass = left.sum()
        if mass > 0.0:
            chance[node] = mass / (mass + 1.0 - chance[node])
            target[node] = left / mass
        elif chance[node] < 1.0:  # nothing is left of p: this path cannot be kept any more
            chance[node] = 0.0
        if not with_replacement:
            rest = draft[node].copy()
            rest[int(tree.tokens_M[rejected])] = 0.0
            mass = rest.sum()
            draft[node] = rest / mass if mass > 0.0 else draft[node]
    path = tree.path_to(node)
    fate_N[path[1:]] = Fate.ACCEPTED
    origin = Origin.CORRECTION if has_kids[node] else Origin.BONUS
    return Verdict(path, draw(target[node], token_uniform(node)), origin, fate_N, accept_prob_N)


class Typical(NamedTuple):
    """How typical a token must be to pass; the defaults are Medusa's."""

    epsilon: float = 0.09
    alpha: float = 0.3


TYPICAL = Typical()


def typical(
    tree: TokenTree,
    probs: Probs,
    choose: Callable[[int], int],
    settings: Typical = TYPICAL,
) -> Verdict:
    """Typical acceptance (Medusa, 2401.10774, section 2.3.1). LOSSY: the law is another one.

    A child passes if p(x) > min(epsilon, alpha exp(-H(p))). The longest path of such children is
    kept, of several the likeliest; `choose(node)` is the target's token after it.
    """
    fate_N, accept_prob_N = untested(tree)
    score: dict[int, tuple[int, float]] = {0: (0, 0.0)}  # depth and log p of paths that pass
    kids = tree.children_of()
    for node in range(tree.num_nodes):
        if node not in score or not kids[node]:
            continue
        p = probs(node)
        some = p[p > 0.0]
        least = min(settings.epsilon, settings.alpha * float(np.exp((some * np.log(some)).sum())))
        for child in kids[node]:
            chance = float(p[tree.tokens_M[child]])
            accept_prob_N[child] = chance > least
            if chance > least:
                score[child] = (score[node][0] + 1, score[node][1] + float(np.log(chance)))
            else:
                fate_N[child] = Fate.REJECTED
    best = max(score, key=lambda node: (*score[node], -node))
    path = tree.path_to(best)
    fate_N[path[1:]] = Fate.ACCEPTED
    origin = Origin.CORRECTION if kids[best] else Origin.BONUS
    return Verdict(path, choose(best), origin, fate_N, accept_prob_N)


def _left_over(p_V: np.ndarray, q_V: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    left = np.maximum(p_V - q_V, 0.0)
    mass = left.sum()
    return left / mass if mass > 0.0 else otherwise
