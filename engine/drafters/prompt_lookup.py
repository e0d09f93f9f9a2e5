"""Continues as the text did when its last tokens stood there before (prompt-lookup-decoding)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import Common
from engine.drafters.lookup import Branches, LookupDrafter
from engine.options import option


@dataclass(frozen=True, slots=True)
class Options(Common):
    """What counts as a match, and how much of what follows it is taken."""

    ngram: int = option(3, "longest run of last tokens that is looked up", min=1, max=16)
    min_ngram: int = option(1, "shortest run worth a guess", min=1, max=16)
    length: int = option(10, "tokens taken from behind a match", min=1, max=64)
    match: str = option("latest", "which of several matches", choices=("latest", "earliest"))
    matches: int = option(1, "matches merged into one tree; 1 is a chain", min=1, max=16)


class Index:
    """Where each n-gram of one sequence is followed by something."""

    def __init__(self, shortest: int, longest: int) -> None:
        self.sizes = range(longest, shortest - 1, -1)
        self._followed: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self._known = 0

    def extend(self, tokens: list[int]) -> None:
        """Take in what is new at the end."""
        for at in range(max(self._known, 1), len(tokens)):
            for size in self.sizes:
                if size <= at:
                    self._followed[tuple(tokens[at - size : at])].append(at)
        self._known = len(tokens)

    def matches(self, tokens: list[int], *, latest: bool) -> Iterator[int]:
        """Places that follow an earlier copy of the last tokens, longest copies first."""
        seen: set[int] = set()
        for size in self.sizes:
            found = self._followed.get(tuple(tokens[-size:]), []) if size <= len(tokens) else []
            for at in reversed(found) if latest else found:
                if at not in seen:
                    seen.add(at)
                    yield at


class PromptLookup(LookupDrafter):
    """Keeps an index of each request's tokens, prompt included."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        self._options = options
        self._index: dict[int, Index] = {}

    def admit(self, *sequences: Sequence) -> None:
        shortest = min(self._options.min_ngram, self._options.ngram)
        for sequence in sequences:
            self._index[sequence.slot] = Index(shortest, self._options.ngram)

    def release(self, slot: int) -> None:
        self._index.pop(slot, None)

    def branches(self, sequence: Sequence) -> Branches:
        tokens, options = sequence.tokens, self._options
        index = self._index[sequence.slot]
        index.extend(tokens)
        length = min(options.length, sequence.max_depth)
        found = Branches(tokens[-1])
        places = index.matches(tokens, latest=options.match == "latest")
        for _, place in zip(range(options.matches), places, strict=False):
            found.add(tokens[place : place + length])
        return found


METHOD = Method(
    name="prompt-lookup",
    summary="Copies what followed the last tokens earlier in the text; needs no draft model.",
    options=Options,
    build=PromptLookup,
    max_nodes=lambda options: options.length * options.matches + 1,
)
