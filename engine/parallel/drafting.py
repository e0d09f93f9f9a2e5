"""Drafting on other ranks: what rank 0 says of its requests, and what ranks make of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from engine.drafters.base import Sequence
from engine.growth import Noise
from engine.parallel.construct import SharedDrafter
from engine.parallel.place import Place
from engine.records import Origin, Verdict
from engine.sampling import Sampling
from engine.tree import TokenTree

if TYPE_CHECKING:
    from engine.target import Scores


class Wanted(NamedTuple):
    """A request that wants a tree."""

    slot: int
    tokens: list[int]  # that came since it was last told
    remaining: int
    budget: int | None


class Started(NamedTuple):
    """A request that starts."""

    slot: int
    request: int  # keys its noise
    tokens: list[int]
    remaining: int


class DraftSide:
    """A drafting rank's drafter, with its own copy of the requests under way."""

    def __init__(
        self, drafter: SharedDrafter, place: Place, sampling: Sampling, vocab_size: int
    ) -> None:
        self.drafter = drafter
        self._place = place
        self._sampling, self._vocab_size = sampling, vocab_size
        self._sequences: dict[int, Sequence] = {}
        self._trees: dict[int, TokenTree] = {}

    def admit(self, started: list[Started]) -> None:
        """Requests start."""
        for one in started:
            noise = Noise(self._sampling, request=one.request, vocab_size=self._vocab_size)
            self._sequences[one.slot] = Sequence(one.slot, list(one.tokens), one.remaining, noise)
        with self._place.lanes.note("draft", "prefill"):
            self.drafter.admit(*(self._sequences[one.slot] for one in started))

    def propose(self, step: int, wanted: list[Wanted]) -> list[TokenTree]:
        """A tree for each of these requests."""
        self._place.lanes.step = step
        sequences = []
        for one in wanted:
            sequence = self._sequences[one.slot]
            self._take(sequence, one.tokens)
            sequence.remaining, sequence.budget = one.remaining, one.budget
            sequences.append(sequence)
        trees = self.drafter.propose(sequences)
        self._trees.update((one.slot, tree) for one, tree in zip(wanted, trees, strict=True))
        return trees

    def observe(self, slot: int, tokens: list[int], path: list[int], next_token: int) -> None:
        """What became of the last tree; `tokens` were emitted since the request was last told."""
        sequence = self._sequences[slot]
        self._take(sequence, tokens)
        nothing = np.zeros(0)
        verdict = Verdict(path, next_token, Origin.BONUS, nothing, nothing)
        # a drafter on ranks looks at the path alone: logits of the target would have to be sent
        self.drafter.observe(sequence, self._trees[slot], verdict, None)  # type: ignore[arg-type]

    def release(self, slot: int) -> None:
        """The request is over."""
        self.drafter.release(slot)
        self._sequences.pop(slot, None)
        self._trees.pop(slot, None)

    def idle(self) -> None:
        """Nothing is asked for just now: a drafter that can goes on by itself."""
        self.drafter.go_on(self._place.busy)

    def _take(self, sequence: Sequence, tokens: list[int]) -> None:
        if tokens:
            sequence.tokens.extend(tokens)
            sequence.noise.forget_before(sequence.position)


class Ranks(Protocol):
    """How rank 0 reaches the drafting ranks."""

    def call(self, name: str, *arguments: Any) -> None:
        """Have the drafting ranks but this one do something."""

    def answer(self, name: str, *arguments: Any) -> Any:
        """Have all do something, and wait for what the first of them says."""


class ParallelDrafter:
    """Rank 0's drafter: the drafting ranks, with or without itself, propose the trees."""

    def __init__(
        self,
        ranks: Ranks,
        side: DraftSide | None,
        *,
        children: Any,
        step: Callable[[], int],
        guarded: Callable[[], AbstractContextManager[None]],
        place: Place,
    ) -> None:
        self.children = children
        self._ranks, self._side = ranks, side
        self._step, self._guarded, self._place = step, guarded, place
        self._told: dict[int, int] = {}  # tokens that the ranks know, by slot

    def admit(self, *sequences: Sequence) -> None:
        for s in sequences:
            self._told[s.slot] = len(s.tokens)
        started = [Started(s.slot, s.noise.request, list(s.tokens), s.remaining) for s in sequences]
        self._all("admit", started)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        wanted = [Wanted(s.slot, self._news(s), s.remaining, s.budget) for s in sequences]
        if self._side is None:
            with self._place.lanes.note("network", "await trees"):
                return self._ranks.answer("propose", self._step(), wanted)
        self._ranks.call("propose", self._step(), wanted)
        with self._guarded():
            return self._side.propose(self._step(), wanted)

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        news = self._news(sequence)
        self._all("observe", sequence.slot, news, verdict.path_A, verdict.next_token)

    def release(self, slot: int) -> None:
        self._told.pop(slot, None)
        self._all("release", slot)

    def _news(self, sequence: Sequence) -> list[int]:
        """Tokens that the ranks have not been told."""
        known = self._told[sequence.slot]
        self._told[sequence.slot] = len(sequence.tokens)
        return sequence.tokens[known:]

    def _all(self, name: str, *arguments: Any) -> None:
        self._ranks.call(name, *arguments)
        if self._side is not None:
            getattr(self._side, name)(*arguments)
