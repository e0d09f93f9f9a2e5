"""What no kernel may see is refused before a launch, by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_ext import memory
from cuda_ext.accept import Settings, accept, new_scratch
from cuda_ext.arrays import MATCH, Draws, Trees, new_stats, new_verdicts, no_draws
from cuda_ext.checks import check_draws, check_trees

TOKENS, PARENTS = [[5, 1, 2], [4, 0, 0]], [[-1, 0, 1], [-1, 0, 0]]


def check(tokens=TOKENS, parents=PARENTS, num_nodes=(3, 2), first=(0, 3), vocab_size=6) -> None:
    check_trees(
        np.array(tokens, np.int64), np.array(parents, np.int32), np.array(num_nodes, np.int32),
        vocab_size=vocab_size, first_B=np.array(first, np.int32), num_rows=6,
    )  # fmt: skip


def test_good_trees_pass_whatever_stands_in_the_padding():
    check()
    check(tokens=[[5, 1, 2], [4, 0, 99]], parents=[[-1, 0, 1], [-1, 0, 77]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parents": [[-1, 0, 2], [-1, 0, 0]]}, "node 2 of tree 0 has the parent 2"),
        ({"parents": [[-1, 0, 1], [-1, 7, 0]]}, "node 1 of tree 1 has the parent 7"),
        ({"parents": [[-1, -1, 1], [-1, 0, 0]]}, "node 1 of tree 0 has the parent -1"),
        ({"parents": [[0, 0, 1], [-1, 0, 0]]}, "node 0 of tree 0 has the parent 0"),
        ({"parents": [[-2, 0, 1], [-1, 0, 0]]}, "node 0 of tree 0 has the parent -2"),
        ({"tokens": [[5, 1, 6], [4, 0, 0]]}, "node 2 of tree 0 has the token 6"),
        ({"tokens": [[5, 1, 2], [-4, 0, 0]]}, "node 0 of tree 1 has the token -4"),
        ({"num_nodes": (3, 4)}, "tree 1 has 4 nodes"),
        ({"num_nodes": (0, 2)}, "tree 0 has 0 nodes"),
        ({"num_nodes": (-1, 2)}, "tree 0 has -1 nodes"),
        ({"num_nodes": (3, 2, 1)}, "one per tree"),
        ({"first": (0, 5)}, "tree 1 has 5 as its first row"),
        ({"first": (-1, 3)}, "tree 0 has -1 as its first row"),
        ({"vocab_size": 0}, "vocabulary has 0 tokens"),
        ({"tokens": [[5, 1], [4, 0]]}, "both must be"),
    ],
)
def test_others_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        check(**wrong)


def test_too_many_nodes_are_refused():
    many = np.zeros((1, 1025), np.int64)
    with pytest.raises(ValueError, match="up to 1024"):
        check_trees(many, many.astype(np.int32), np.ones(1, np.int32), vocab_size=2)


@pytest.mark.parametrize("uniform", [-0.1, 1.0, np.nan, np.inf])
def test_uniforms_are_in_range(uniform):
    draws = no_draws(1, 2)
    draws.uniforms_BN2[0, 1, 1] = uniform
    check_draws(draws, np.ones(1, np.int32), uniforms=True, noise=False)  # padding only
    with pytest.raises(ValueError, match="uniform"):
        check_draws(draws, np.full(1, 2, np.int32), uniforms=True, noise=False)


def test_rows_of_tables_are_in_range():
    draws = no_draws(1, 2)
    with pytest.raises(ValueError, match="row of noise"):
        check_draws(draws, np.ones(1, np.int32), uniforms=False, noise=True)
    draws.draft_row_BN[0, 0] = 0
    with pytest.raises(ValueError, match="draft law"):
        check_draws(draws, np.ones(1, np.int32), uniforms=True, noise=False)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_is_none_is_refused(how, scale):
    settings = Settings(MATCH, scale)
    trees = Trees(*(np.zeros((1, 1), int),) * 2, np.ones(1, np.int32), np.zeros(1, np.int32))
    draws = Draws(*no_draws(1, 1))
    with pytest.raises(ValueError, match="temperature"):
        accept(
            settings, trees, np.zeros((1, 4), np.float32), draws=draws, stats=new_stats(1, 1),
            scratch=new_scratch(settings, 1, 4), out=new_verdicts(1, 1), how=how,
        )  # fmt: skip


def test_memory_of_two_kinds_is_refused(monkeypatch):
    here, there = torch.zeros(1), torch.ones(1)
    monkeypatch.setattr(memory, "_is_cuda", lambda array: array is there)
    assert memory.use_kernel("auto", there)
    assert not memory.use_kernel("auto", here, None)
    with pytest.raises(ValueError, match="host memory"):
        memory.use_kernel("auto", here, there)
