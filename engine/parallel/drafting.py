"""Drafting on other ranks: what rank 0 says of its requests, and what ranks make of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from engine.drafters.base import Drafter, Sequence
from engine.drafters.merged import Merged
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

    def __init__(self, drafter: Drafter, place: Place, sampling: Sampling, vocab_size: int) -> None:
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
        shared = isinstance(self.drafter, SharedDrafter)  # else its runner notes
        with self._place.lanes.note("draft", "prefill") if shared else nullcontext():
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

    def release(self, slot: int, tokens: list[int]) -> None:
        """The request is over; `tokens` were emitted since it was last told."""
        self._sequences[slot].tokens.extend(tokens)  # some learn from what was answered
        self.drafter.release(slot)
        del self._sequences[slot]
        self._trees.pop(slot, None)

    def idle(self) -> None:
        """Nothing is asked for just now: a drafter that can goes on by itself."""
        if isinstance(self.drafter, SharedDrafter):
            self.drafter.go_on(self._place.busy)

    def _take(self, sequence: Sequence, tokens: list[int]) -> None:
        if tokens:
            sequence.tokens.extend(tokens)
            sequence.noise.forget_before(sequence.position)


class Ranks(Protocol):
    """How rank 0 reaches the ranks that a draft model is on."""

    def call(self, name: str, *arguments: Any) -> None:
        """Have those but this one do something."""

    def ask(self, name: str, *arguments: Any) -> None:
        """Have all do something; the first of them will say what came of it."""

    def answer(self) -> Any:
        """Wait for what was asked."""


class ParallelDrafter:
    """Rank 0's drafter: ranks of a draft model, with or without itself, propose the trees."""

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
        self._sequences: dict[int, Sequence] = {}

    def admit(self, *sequences: Sequence) -> None:
        for s in sequences:
            self._told[s.slot], self._sequences[s.slot] = len(s.tokens), s
        started = [Started(s.slot, s.noise.request, list(s.tokens), s.remaining) for s in sequences]
        self._all("admit", started)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        return self.begin(sequences)()

    def begin(self, sequences: list[Sequence]) -> Callable[[], list[TokenTree]]:
        """Have the ranks begin with the trees; what is returned waits for them."""
        wanted = [Wanted(s.slot, self._news(s), s.remaining, s.budget) for s in sequences]
        step, side = self._step(), self._side
        (self._ranks.ask if side is None else self._ranks.call)("propose", step, wanted)

        def trees() -> list[TokenTree]:
            if side is None:
                with self._place.lanes.note("network", "await trees"):
                    return self._ranks.answer()
            with self._guarded():
                return side.propose(step, wanted)

        return trees

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        news = self._news(sequence)
        self._all("observe", sequence.slot, news, verdict.path_A, verdict.next_token)

    def release(self, slot: int) -> None:
        sequence = self._sequences.pop(slot, None)
        if sequence is not None:  # else it was never admitted
            self._all("release", slot, self._news(sequence))

    def _news(self, sequence: Sequence) -> list[int]:
        """Tokens that the ranks have not been told."""
        known = self._told[sequence.slot]
        self._told[sequence.slot] = len(sequence.tokens)
        return sequence.tokens[known:]

    def _all(self, name: str, *arguments: Any) -> None:
        self._ranks.call(name, *arguments)
        if self._side is not None:
            getattr(self._side, name)(*arguments)


class MergedOnRanks(Merged):
    """Trees of several draft models, drafted at once by the ranks that those are on."""

    def _proposed(self, sequences: list[Sequence]) -> list[list[TokenTree]]:
        begun = {
            at: drafter.begin(sequences)
            for at, drafter in enumerate(self._drafters)
            if isinstance(drafter, ParallelDrafter)
        }
        own = {
            at: drafter.propose(sequences)
            for at, drafter in enumerate(self._drafters)
            if at not in begun
        }
        return [own[at] if at in own else begun[at]() for at in range(len(self._drafters))]
