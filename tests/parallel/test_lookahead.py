"""Drafting ahead: the same trees, and no pass for levels that were guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import PENDING_ROWS
from engine.growth import Noise
from engine.parallel.construct import SharedDrafter
from engine.parallel.exchange import Alone
from engine.parallel.lanes import Lanes
from engine.parallel.lookahead import LookaheadDrafter
from engine.parallel.needs import DIVISIBLE
from engine.records import Origin, Verdict
from engine.registry import METHODS, parse_options
from engine.sampling import Sampling
from engine.tree import Children, TokenTree
from tests.engine.tiny import VOCAB
from tests.parallel.paths import PathRunner, logits_after, random_walk
from tests.parallel.test_construct import CASES, assert_same

STEPS = 9


def drafter(kind: type, method: str, options: dict, children: Children) -> Any:
    parsed = parse_options(method, options)
    rows = METHODS[method].max_draft_rows(parsed) + PENDING_ROWS
    if kind is LookaheadDrafter:
        rows += METHODS[method].max_draft_rows(parsed) + 2
    context = DrafterContext(
        sampling=Sampling(0.0 if children is Children.FIXED else 0.9, seed=3),
        children=children,
        with_replacement=True,
        draft=PathRunner(2, max_tree=rows),
        target=None,
        vocab_size=VOCAB,
    )
    plain = METHODS[method].build(parsed, context)
    most = DIVISIBLE[method].most_children(parsed)
    return kind(plain.grow, parsed, context, exchange=Alone(), most_children=most, lanes=Lanes())


def passes_allowed(count: int):
    """Rank 0 asks for something after so many looks at whether it does."""
    left = [count]

    def busy() -> bool:
        left[0] -= 1
        return left[0] < 0

    return busy


def first_choice(sampling: Sampling, tokens: list[int]) -> int:
    return int(logits_after(tuple(tokens), VOCAB).argmax())


def decode(one: Any, *, agree: float, look: int, slots: int = 2) -> tuple[list[TokenTree], int]:
    """Trees, and passes inside `propose`. A share `agree` of the steps goes as was guessed."""
    sampling = one._context.sampling
    sequences = [
        Sequence(slot, [1, 2 + slot, 3], 90, Noise(sampling, request=slot, vocab_size=VOCAB))
        for slot in range(slots)
    ]
    for sequence in sequences:
        one.admit(sequence)
    rng, trees, asked = np.random.default_rng(0), [], 0
    for step in range(STEPS):
        before = len(one._runner.passes)
        proposed = one.propose(sequences)
        asked += len(one._runner.passes) - before
        trees += proposed
        one.go_on(passes_allowed(look))
        for sequence, tree in zip(sequences, proposed, strict=True):
            if rng.random() < agree:
                path, children = [0], tree.children_of()
                while children[path[-1]]:
                    path.append(children[path[-1]][0])
                known = [*sequence.tokens, *(int(tree.tokens_M[n]) for n in path[1:])]
                following = first_choice(sampling, known)
            else:
                path = random_walk(tree, seed=sequence.slot, step=step)
                following = (step * 5) % VOCAB
            emitted = [int(tree.tokens_M[node]) for node in path[1:]] + [following]
            sequence.tokens += emitted
            sequence.remaining -= len(emitted)
            verdict = Verdict(path, following, Origin.BONUS, np.zeros(0), np.zeros(0))
            one.observe(sequence, tree, verdict, None)
    for sequence in sequences:
        one.release(sequence.slot)
    return trees, asked


@pytest.mark.parametrize("look", [1, 2, 50])
@pytest.mark.parametrize("children", [Children.FIXED, Children.COUPLED])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_trees_are_those_without_looking_ahead(method, options, children, look):
    plain, _ = decode(drafter(SharedDrafter, method, options, children), agree=0.6, look=0)
    ahead, _ = decode(drafter(LookaheadDrafter, method, options, children), agree=0.6, look=look)
    assert_same(plain, ahead)


def test_drawn_children_are_the_same_as_well():
    options = {"policy": "best-first", "nodes": 14, "depth": 5, "width": 3}
    plain, _ = decode(
        drafter(SharedDrafter, "dynamic-tree", options, Children.SAMPLED), agree=0.6, look=0
    )
    one = drafter(LookaheadDrafter, "dynamic-tree", options, Children.SAMPLED)
    ahead, _ = decode(one, agree=0.6, look=50)
    assert_same(plain, ahead)


def test_a_guess_that_comes_true_spares_the_passes_of_the_next_tree():
    options = {"expansion": "2,2,1"}
    alone = drafter(LookaheadDrafter, "static-tree", options, Children.FIXED)
    _, asked = decode(alone, agree=1.0, look=0, slots=1)
    assert alone.num_guesses == alone.num_hits == 0
    one = drafter(LookaheadDrafter, "static-tree", options, Children.FIXED)
    _, spared = decode(one, agree=1.0, look=50, slots=1)
    assert one.num_hits == one.num_guesses - 1 >= STEPS - 2, "the last one is never asked for"
    assert spared < asked / 3


def test_a_guess_that_fails_costs_no_pass_of_the_next_tree():
    options = {"expansion": "2,2,1"}
    _, asked = decode(
        drafter(LookaheadDrafter, "static-tree", options, Children.FIXED), agree=0.0, look=0
    )
    one = drafter(LookaheadDrafter, "static-tree", options, Children.FIXED)
    _, with_guesses = decode(one, agree=0.0, look=50)
    assert one.num_guesses > 0
    assert with_guesses <= asked


def test_the_guessed_token_after_other_tokens_is_no_hit():
    options = {"expansion": "2,2,1"}
    ahead = drafter(LookaheadDrafter, "static-tree", options, Children.FIXED)
    plain = drafter(SharedDrafter, "static-tree", options, Children.FIXED)
    both = [
        (one, Sequence(0, [1, 2, 3], 90, Noise(Sampling(), request=0, vocab_size=VOCAB)))
        for one in (ahead, plain)
    ]
    for one, sequence in both:
        one.admit(sequence)
    for _ in range(4):
        trees = [one.propose([sequence])[0] for one, sequence in both]
        assert_same(trees[:1], trees[1:])
        ahead.go_on(passes_allowed(50))
        guessed = ahead._guesses[0].tokens[-1]
        for (one, sequence), tree in zip(both, trees, strict=True):
            sequence.tokens.append(guessed)  # nothing was accepted before it
            sequence.remaining -= 1
            verdict = Verdict([0], guessed, Origin.CORRECTION, np.zeros(0), np.zeros(0))
            one.observe(sequence, tree, verdict, None)
    assert ahead.num_guesses == 4
    assert ahead.num_hits == 0
