"""Drafts what followed the same words before, in this text or in earlier answers.

SuffixDecoding (Oliaro et al., 2411.04975): the longer the match, the more it may draft; of the
request's own trie and the one over earlier output, the better continuation is taken.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import Common
from engine.drafters.lookup import Branches, LookupDrafter, Passes
from engine.options import option
from engine.suffix_trie import Continuation, SuffixTrie


@dataclass(frozen=True, slots=True)
class Options(Common):
    """How much a match may draft, and how much is remembered."""

    nodes: int = option(12, "most drafted nodes", min=1, max=255)
    factor: float = option(1.0, "drafted nodes per matched token", min=0, max=16)
    offset: float = option(0.0, "drafted nodes of any match besides", min=0, max=64)
    min_prob: float = option(0.1, "paths less likely than this are cut", min=0, max=1)
    depth: int = option(24, "longest match and continuation together", min=2, max=64)
    shared: bool = option(True, "also look into the answers to earlier requests")
    memory: int = option(
        2_000_000, "most nodes remembered of earlier answers; the oldest are forgotten",
        min=1000, max=100_000_000, tune=False,
    )  # fmt: skip


class Trail(NamedTuple):
    """One request's own trie, and where its text ends there."""

    sequence: Sequence
    trie: SuffixTrie
    place: np.ndarray
    num_prompt: int


class Memory:
    """A trie over the answers to earlier requests, of bounded size."""

    def __init__(self, depth: int, most_nodes: int) -> None:
        self.trie = SuffixTrie(depth)
        self._most_nodes = most_nodes
        self._answers: deque[list[int]] = deque()

    def clear(self) -> None:
        """Forget everything."""
        self.trie.clear()
        self._answers.clear()

    def add(self, answer: list[int]) -> None:
        """Remember an answer; where the trie grows too large, forget the older half of them."""
        self._answers.append(answer)
        self.trie.add(answer, self.trie.start())
        while len(self.trie) > self._most_nodes and len(self._answers) > 1:
            for _ in range((len(self._answers) + 1) // 2):
                self._answers.popleft()
            self.trie.clear()
            for kept in self._answers:
                self.trie.add(kept, self.trie.start())

    def locate(self, tokens: list[int]) -> np.ndarray:
        """Where the end of `tokens` stands in the trie."""
        place = self.trie.start()
        self.trie.follow(tokens[-self.trie.depth :], place)
        return place


class Suffix(LookupDrafter):
    """A trie for each request, one over the answers of earlier ones."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        self._options = options
        self._memory = Memory(options.depth, options.memory)
        self._trails: dict[int, Trail] = {}
        self._known: dict[int, int] = {}  # tokens that each request's trie has taken in
        self._passes = Passes()

    def admit(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            if self._passes.begins_anew(sequence):
                self._memory.clear()
            trie = SuffixTrie(self._options.depth)
            self._trails[sequence.slot] = Trail(sequence, trie, trie.start(), len(sequence.tokens))
            self._known[sequence.slot] = 0

    def release(self, slot: int) -> None:
        trail = self._trails.pop(slot)
        if self._options.shared:
            self._memory.add(trail.sequence.tokens[trail.num_prompt :])

    def branches(self, sequence: Sequence) -> Branches:
        trail = self._trails[sequence.slot]
        trail.trie.add(sequence.tokens[self._known[sequence.slot] :], trail.place)
        self._known[sequence.slot] = len(sequence.tokens)
        best = self._continuation(trail.trie, trail.place, sequence.max_depth, own=True)
        if self._options.shared:
            place = self._memory.locate(sequence.tokens)
            other = self._continuation(self._memory.trie, place, sequence.max_depth, own=False)
            if other is not None and (best is None or other.score > best.score):
                best = other
        found = Branches(sequence.tokens[-1])
        if best is not None:
            nodes: list[int] = []
            for token, parent, prob in zip(
                best.tokens_N.tolist(), best.parents_N.tolist(), best.probs_N.tolist(), strict=True
            ):
                above = 0 if parent < 0 else nodes[parent]
                nodes.append(found.child(above, token, math.log(prob)))
        return found

    def _continuation(
        self, trie: SuffixTrie, place: np.ndarray, max_depth: int, *, own: bool
    ) -> Continuation | None:
        options = self._options
        return trie.continuation(
            place, own=own, factor=options.factor, offset=options.offset, most=options.nodes,
            max_depth=max_depth, min_prob=options.min_prob,
        )  # fmt: skip


METHOD = Method(
    name="suffix",
    summary="Continues as this text or an earlier answer did after the same words.",
    options=Options,
    build=Suffix,
    max_nodes=lambda options: options.nodes + 1,
)
