"""Which nodes of a large tree get a box of their own, and which are folded away with a count."""

from __future__ import annotations

import math
from typing import NamedTuple

import networkx as nx

from engine.records import Verdict
from engine.tree import TokenTree

#: most boxes drawn before branches are folded
FOLD_ABOVE = 200

EMITTED = -1  # stands for the bonus or correction, which is no node of the tree
FOLD = -2  # stands for nodes folded away


class Box(NamedTuple):
    """One box: a node of the tree, EMITTED or FOLD."""

    node: int
    up: int  # index of the parent's box, -1 at the root
    depth: int
    hidden: int = 0  # nodes behind a FOLD, or pruned ones below a node that are not drawn


def boxes(tree: TokenTree, verdict: Verdict, *, fold_above: int, pruned: bool) -> list[Box]:
    """The boxes of a tree in preorder, siblings in rank order, then EMITTED, then FOLD."""
    kept = _kept(tree, verdict, fold_above=fold_above, pruned=pruned)
    graph = _graph(tree)
    last = verdict.path_A[-1]
    found: list[Box] = []
    stack = [(0, -1, 0)]
    while stack:
        node, up, hidden = stack.pop()
        depth = 0 if up < 0 else found[up].depth + 1
        here = len(found)
        if node < 0:
            found.append(Box(node, up, depth, hidden))
            continue
        children = sorted(graph.successors(node), key=lambda kid: (int(tree.rank_M[kid]), kid))
        away = [kid for kid in children if kid not in kept]
        cut = [kid for kid in away if kid >= tree.num_nodes]
        folded = [kid for kid in away if kid < tree.num_nodes]
        found.append(Box(node, up, depth, _size(graph, cut)))
        below = [(kid, here, 0) for kid in children if kid in kept]
        if node == last:
            below.append((EMITTED, here, 0))
        if folded:
            below.append((FOLD, here, _size(graph, folded)))
        stack.extend(reversed(below))
    return found


def _size(graph: nx.DiGraph, roots: list[int]) -> int:
    return sum(1 + len(nx.descendants(graph, root)) for root in roots)


def path_logprobs(tree: TokenTree) -> list[float]:
    """The draft's log-probability of each node's path from the root; -inf where unknown."""
    scores = [0.0] * len(tree.tokens_M)
    for node in range(1, len(scores)):
        own = float(tree.draft_logprob_M[node])
        scores[node] = scores[int(tree.parents_M[node])] + (-math.inf if math.isnan(own) else own)
    return scores


def _graph(tree: TokenTree) -> nx.DiGraph:
    graph = nx.DiGraph()
    total = len(tree.tokens_M)
    graph.add_nodes_from(range(total))
    graph.add_edges_from((int(tree.parents_M[node]), node) for node in range(1, total))
    return graph


def _kept(tree: TokenTree, verdict: Verdict, *, fold_above: int, pruned: bool) -> set[int]:
    """Closed under parents: the accepted path, then the likeliest; pruned nodes last."""
    total = len(tree.tokens_M) if pruned else tree.num_nodes
    if total + 1 <= fold_above:
        return set(range(total))
    path = set(verdict.path_A)
    scores = path_logprobs(tree)
    # A parent comes before its child: it is likelier, or as likely and added earlier.
    order = sorted(
        range(total),
        key=lambda node: (node not in path, node >= tree.num_nodes, -scores[node], node),
    )
    while len(order) > len(path) and _num_boxes(tree, set(order)) > fold_above:
        order.pop()
    return set(order)


def _num_boxes(tree: TokenTree, kept: set[int]) -> int:
    folds = {
        int(tree.parents_M[node])
        for node in range(1, tree.num_nodes)
        if node not in kept and int(tree.parents_M[node]) in kept
    }
    return len(kept) + len(folds) + 1
