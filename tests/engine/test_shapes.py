"""Static shapes: parsing, and the optimal tree against every tree there is."""

from __future__ import annotations

import pytest

from engine.drafters.static_tree import METHOD, Options
from engine.errors import UserError
from engine.registry import parse_options
from engine.shapes import (
    Shape,
    expected_tokens,
    from_expansion,
    from_paths,
    optimal,
    parse_acceptance,
)


def test_specinfer_vector_has_twenty_drafted_nodes():
    shape = from_expansion("1,1,3,1,1,1,1,1")
    assert shape.num_nodes == 1 + 20
    assert max(shape.depths()) == 8
    assert from_expansion("<1,1,3,1,1,1,1,1>") == shape


@pytest.mark.parametrize("text", ["", "2,,1", "2,x", "0", "2,-1", "1.5", "9,9,9,9,9"])
def test_malformed_vectors_are_named(text):
    with pytest.raises(UserError, match=r"Expansion vector"):
        METHOD.max_nodes(parse_options("static-tree", {"expansion": text}))


def test_paths_add_their_prefixes_and_may_skip_ranks():
    shape = from_paths("0;2;0.1.0")
    assert shape.parents_N == (-1, 0, 0, 1, 3)
    assert shape.rank_N == (0, 0, 2, 1, 0)


@pytest.mark.parametrize("text", ["a", "0;;1", "0.-1", "0..1"])
def test_malformed_paths_are_named(text):
    with pytest.raises(UserError, match="Path"):
        from_paths(text)


@pytest.mark.parametrize("text", ["", "0.6,x", "1.2", "0.7,0.7", "-0.1", "nan"])
def test_malformed_acceptance_is_named(text):
    with pytest.raises(UserError, match="Acceptance vector"):
        parse_acceptance(text)


def all_trees(num_nodes: int, max_rank: int):
    """Every rank tree: sets of paths closed under parent and left sibling."""

    def grow(paths: frozenset):
        if len(paths) == num_nodes:
            yield paths
            return
        for path in paths:
            for rank in range(max_rank):
                child = (*path, rank)
                if child not in paths and (rank == 0 or (*path, rank - 1) in paths):
                    yield from grow(paths | {child})

    return set(grow(frozenset({()})))


@pytest.mark.parametrize(
    "acceptance", [(0.7, 0.2), (0.4, 0.3, 0.2), (0.5, 0.0, 0.3), (0.9, 0.05, 0.03)]
)
@pytest.mark.parametrize("num_nodes", [1, 2, 4, 6])
@pytest.mark.parametrize("max_depth", [1, 2, 5])
def test_optimal_tree_beats_every_other(acceptance, num_nodes, max_depth):
    def value(paths):
        total = 0.0
        for path in paths:
            chance = 1.0
            for rank in path:
                chance *= acceptance[rank]
            total += chance
        return total

    fitting = [
        value(t) for size in range(1, num_nodes + 1) for t in all_trees(size, len(acceptance))
        if max(map(len, t)) <= max_depth
    ]  # fmt: skip
    shape = optimal(acceptance, num_nodes, max_depth)
    assert shape.num_nodes <= num_nodes
    assert max(shape.depths()) <= max_depth
    assert expected_tokens(shape, acceptance) == pytest.approx(max(fitting))


def test_option_precedence():
    assert METHOD.max_nodes(Options(paths="0;1", acceptance="0.5")) == 3
    assert METHOD.max_nodes(Options(acceptance="0.5,0.2", nodes=4)) == 5
    assert isinstance(from_expansion("2"), Shape)
