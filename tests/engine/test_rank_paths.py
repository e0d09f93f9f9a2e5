"""Trees of rank paths: the best against every tree there is, the published one, their order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine.errors import UserError
from engine.rank_paths import (
    RankTree,
    best,
    by_worth,
    expected_tokens,
    parse_accuracies,
    published,
)
from engine.shapes import from_paths

ACCURACIES = ((0.5, 0.2, 0.1, 0.05), (0.4, 0.15, 0.02), (0.3, 0.02))


def paths(tree: RankTree) -> list[tuple[int, ...]]:
    """Each node's ranks from the root down."""
    found: list[tuple[int, ...]] = [()]
    for node in range(1, tree.num_nodes):
        found.append((*found[tree.parents_N[node]], int(tree.rank_N[node])))
        assert len(found[-1]) == tree.depth_N[node]
    return found


def most_expected(num_nodes: int) -> float:
    """Expected tokens of the best of all trees of so many nodes, by looking at each."""

    def worth(path: tuple[int, ...]) -> float:
        return float(np.prod([ACCURACIES[d][rank] for d, rank in enumerate(path)]))

    trees = {frozenset({()})}
    for _ in range(num_nodes - 1):
        trees = {
            tree | {(*path, rank)}
            for tree in trees
            for path in tree
            if len(path) < len(ACCURACIES)
            for rank in range(len(ACCURACIES[len(path)]))
            if (*path, rank) not in tree
        }
    return max(sum(map(worth, tree)) for tree in trees)


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 5])
def test_no_tree_emits_more_than_the_best(num_nodes):
    tree = best(ACCURACIES, num_nodes)
    assert tree.num_nodes == num_nodes
    assert expected_tokens(tree, ACCURACIES) == pytest.approx(most_expected(num_nodes))


def test_every_beginning_of_a_tree_is_the_best_of_its_size():
    whole = paths(best(ACCURACIES, 12))
    assert len(set(whole)) == 12
    for size in range(1, 12):
        assert paths(best(ACCURACIES, size)) == whole[:size]


def test_guesses_that_are_never_right_get_no_node():
    tree = best(((0.5, 0.0), (0.0, 0.3)), 100)
    assert paths(tree) == [(), (0,), (0, 1)]
    assert best(((0.0,),), 8).num_nodes == 1
    assert best((), 8).num_nodes == 1


def test_guesses_that_are_always_right_make_a_chain():
    tree = best(((1.0, 0.0), (1.0, 0.0), (1.0, 0.0)), 3)
    assert paths(tree) == [(), (0,), (0, 0)]


def test_nodes_of_a_given_shape_stand_in_the_order_of_their_worth():
    tree = by_worth(from_paths("0;1;2;0.0;0.1;0.0.0"), ACCURACIES)
    worths = [np.prod([ACCURACIES[d][r] for d, r in enumerate(path)]) for path in paths(tree)]
    assert all(one >= other for one, other in pairwise(worths))
    assert paths(tree) == [(), (0,), (1,), (0, 0), (2,), (0, 1), (0, 0, 0)], "a tie: shallow first"
    assert paths(by_worth(from_paths("9;0.0.0.0"), ACCURACIES))[1:] == [
        (0,), (0, 0), (0, 0, 0), (9,), (0, 0, 0, 0)
    ], "ranks and depths nobody knows of come last"  # fmt: skip


def test_a_tree_without_its_deeper_nodes():
    tree = by_worth(from_paths("0;1;0.0;1.0;1.0.0"), ACCURACIES)
    assert set(paths(tree.up_to(2))) == {(), (0,), (1,), (0, 0), (1, 0)}
    assert tree.up_to(0).num_nodes == 1
    assert tree.up_to(9).parents_N.tolist() == tree.parents_N.tolist()


def test_the_published_tree():
    """Counted in the paper's repository: 63 nodes, four deep, ten children at most."""
    shape = published()
    depths = shape.depths()
    assert [depths.count(depth) for depth in range(5)] == [1, 10, 28, 23, 2]
    assert max(shape.rank_N) == 9
    tree = set(paths(by_worth(shape, ACCURACIES)))
    assert {(0, 0, 9), (0, 7, 0), (1, 0, 1), (1, 6), (2, 2), (9, 0), (0, 0, 0, 1)} <= tree
    assert not {(1, 7), (2, 3), (0, 8, 0), (1, 1, 0)} & tree


def test_accuracies_are_read_by_depth_and_rank():
    assert parse_accuracies("0.5, 0.2;0.25") == ((0.5, 0.2), (0.25,))


@pytest.mark.parametrize("text", ["", "x", "0.5;", "1.5", "-0.1", "nan", "0.5;;0.1"])
def test_malformed_accuracies_are_named(text):
    with pytest.raises(UserError, match="Acceptance"):
        parse_accuracies(text)
