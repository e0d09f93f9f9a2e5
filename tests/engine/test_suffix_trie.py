"""The suffix trie against counting by hand, and what the lookup drafters build on it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from engine.drafters.suffix import Memory
from engine.suffix_trie import SuffixTrie


def counted(tokens: list[int], depth: int) -> Counter[tuple[int, ...]]:
    """Every run of up to `depth` tokens by hand."""
    runs = (
        tuple(tokens[at : at + size])
        for size in range(1, depth + 1)
        for at in range(len(tokens) - size + 1)
    )
    return Counter(runs)


def likely(trie: SuffixTrie, place: np.ndarray, **changes):
    settings = {"own": True, "factor": 1.0, "offset": 4.0, "most": 8, "max_depth": 8}
    return trie.continuation(place, **({"min_prob": 0.0} | settings | changes))


@pytest.mark.parametrize("depth", [2, 5, 9])
def test_every_run_is_counted(depth):
    tokens = np.random.default_rng(depth).integers(0, 4, 3000).tolist()
    trie = SuffixTrie(depth)
    place = trie.start()
    for at in range(0, len(tokens), 7):  # in pieces, past several enlargements
        trie.add(tokens[at : at + 7], place)
    by_hand = counted(tokens, depth)
    assert len(trie) == len(by_hand) + 1
    for run, count in by_hand.items():
        there = trie.start()
        trie.follow(list(run), there)
        assert trie._nodes[1, there[len(run) - 1]] == count


def test_an_unseen_run_has_no_place():
    trie = SuffixTrie(4)
    trie.add([1, 2, 3], trie.start())
    place = trie.start()
    trie.follow([1, 3], place)
    assert place[0] >= 0
    assert place[1] == -1


def test_the_longest_match_of_a_repetition_continues_it():
    trie = SuffixTrie(6)
    place = trie.start()
    trie.add([1, 2, 3, 4, 5, 9, 9, 1, 2, 3], place)
    found = likely(trie, place)
    assert found.tokens_N[:2].tolist() == [4, 5]
    assert found.probs_N[:2].tolist() == [1.0, 1.0], "the end itself counts as an occurrence"
    assert found.score == pytest.approx(found.probs_N.cumprod().sum())


def test_siblings_share_by_their_counts_and_the_unlikely_are_cut():
    trie = SuffixTrie(3)
    place = trie.start()
    trie.add([7, 1, 7, 1, 7, 1, 7, 2, 7], place)
    found = likely(trie, place, max_depth=1)
    assert dict(zip(found.tokens_N.tolist(), found.probs_N.tolist(), strict=True)) == {
        1: 0.75, 2: 0.25,
    }  # fmt: skip
    assert likely(trie, place, max_depth=1, min_prob=0.5).tokens_N.tolist() == [1]


def test_the_budget_grows_with_the_match():
    trie = SuffixTrie(12)
    place = trie.start()
    trie.add([1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3], place)
    sizes = {
        factor: len(likely(trie, place, factor=factor, offset=0.0).tokens_N)
        for factor in (0.4, 1.0, 2.0)
    }
    assert sizes == {0.4: 1, 1.0: 3, 2.0: 6}


def test_memory_is_bounded_and_keeps_the_newest():
    memory = Memory(depth=8, most_nodes=2000)
    answers = np.random.default_rng(0).integers(0, 1000, (40, 60)).tolist()
    for answer in answers:
        memory.add(answer)
        assert len(memory.trie) <= 2000
    place = memory.locate(answers[-1][:10])
    assert place[6] >= 0, "the newest answer was forgotten"
    assert memory.locate(answers[0][:10])[1] == -1, "the oldest is still there"
