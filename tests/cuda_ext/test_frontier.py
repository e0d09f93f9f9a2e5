"""Frontier expansion and prune: kernels and twins against references, with ties."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_ext.frontier import (
    NO_CHILD,
    best_nodes,
    reference_best_nodes,
    reference_top_children,
    top_children,
)
from engine.growth import Growth, logsumexp, top_k, top_k_compiled


def expand(scores_RV, rows, count: int, how: str):
    tokens = np.empty((len(rows), count), np.int64)
    best, log_norm = np.empty(tokens.shape), np.empty(len(rows))
    top_children(
        scores_RV, np.asarray(rows, np.int32),
        tokens_FK=tokens, best_FK=best, log_norm_F=log_norm, how=how,
    )  # fmt: skip
    return tokens, best, log_norm


@pytest.mark.parametrize(("vocab_size", "count"), [(1, 1), (3, 3), (37, 1), (37, 5), (300, 17)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_children_are_the_references(how, vocab_size, count, dtype):
    rng = np.random.default_rng(vocab_size)
    scores = rng.normal(0, 3, (5, vocab_size)).astype(dtype)
    scores[2] = np.round(scores[2])  # many ties
    scores[3] = 1.5  # nothing but
    rows = [4, 2, 3, 0]
    tokens, best, log_norm = expand(scores, rows, count, how)
    for f, row in enumerate(rows):
        expected = reference_top_children(scores[row], count)
        assert tokens[f].tolist() == expected[0]
        assert best[f].tolist() == expected[1]
        assert log_norm[f] == pytest.approx(expected[2], abs=1e-9)
        assert log_norm[f] == pytest.approx(logsumexp(scores[row].astype(float)), abs=1e-9)
        for find in (top_k, top_k_compiled):
            assert tokens[f].tolist() == find(scores[row], count, 0.0)[0].tolist()


def test_a_token_of_no_mass_is_no_child(how):
    scores = np.full((2, 9), -np.inf)
    scores[0, [7, 2]] = 0.5, 1.0
    tokens, best, log_norm = expand(scores, [0, 1], 3, how)
    assert tokens.tolist() == [[2, 7, NO_CHILD], [NO_CHILD] * 3]
    assert best[0].tolist() == [1.0, 0.5, -np.inf]
    assert log_norm[0] == pytest.approx(np.logaddexp(1.0, 0.5))
    assert log_norm[1] == -np.inf
    for find in (top_k, top_k_compiled):
        assert [find(row, 3, 0.5)[0].tolist() for row in scores] == [[2, 7], []]


@pytest.mark.parametrize("count", [0, -1, 65, 10])
def test_counts_out_of_range_are_refused(how, count):
    scores = np.zeros((1, 9 if count == 10 else 100))
    tokens = np.empty((1, max(count, 0)), np.int64)
    with pytest.raises(ValueError, match="children per node"):
        top_children(
            scores, np.zeros(1, np.int32),
            tokens_FK=tokens, best_FK=np.empty(tokens.shape), log_norm_F=np.empty(1), how=how,
        )  # fmt: skip


def random_growth(rng: np.random.Generator, num_nodes: int) -> Growth:
    growth = Growth([0])
    while len(growth) < num_nodes:
        node = int(rng.integers(len(growth)))
        some = int(rng.integers(1, 4))
        scores = -rng.choice([0.0, 0.25, 0.5, 2.0], some)  # 0: as probable as the parent
        growth.add_children(node, rng.integers(0, 50, some), scores, scores)
    return growth


def test_pruning_is_the_references_and_the_engines(how):
    rng = np.random.default_rng(3)
    growths = [random_growth(rng, size) for size in (1, 2, 9, 30, 64)]
    width = max(map(len, growths))
    path_score = np.full((len(growths), width), np.nan)
    for b, growth in enumerate(growths):
        path_score[b, : len(growth)] = growth.path_score
    num = np.array([len(growth) for growth in growths], np.int32)
    for count in (1, 5, 16, 200):
        kept = np.empty((len(growths), 256), np.int32)
        num_kept = np.empty(len(growths), np.int32)
        counts = np.full(len(growths), count, np.int32)
        best_nodes(path_score, num, counts, kept_BN=kept, num_kept_B=num_kept, how=how)
        for b, growth in enumerate(growths):
            expected = reference_best_nodes(growth.path_score, count)
            found = kept[b, : num_kept[b]].tolist()
            assert found == expected == growth.best(count)
            assert (kept[b, num_kept[b] :] == -1).all()
            assert {growth.parents[node] for node in found} <= {0, *found}, "a parent was dropped"


def test_more_than_shared_memory_holds_is_refused(how):
    with pytest.raises(ValueError, match="up to 1024"):
        best_nodes(
            np.zeros((1, 2)), np.ones(1, np.int32), np.ones(1, np.int32),
            kept_BN=np.zeros((1, 1025), np.int32), num_kept_B=np.zeros(1, np.int32), how=how,
        )  # fmt: skip
