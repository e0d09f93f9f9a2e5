"""What drafters without a model share: they look continuations up and cost no draft pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.drafters.base import Sequence
from engine.tree import Children, Source, TokenTree, root_only, tree_from_lists

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores


class Branches:
    """Continuations merged into one tree: equal beginnings share their nodes."""

    def __init__(self, root: int) -> None:
        self.tokens = [root]
        self.parents = [-1]
        self.logprobs = [0.0]
        self._child: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def child(self, parent: int, token: int, logprob: float = float("nan")) -> int:
        """The node of `token` under `parent`, added where it is new."""
        node = self._child.get((parent, token))
        if node is None:
            node = self._child[parent, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(parent)
            self.logprobs.append(logprob)
        return node

    def add(self, continuation: Iterable[int]) -> None:
        """A chain from the root; its probability is not known."""
        node = 0
        for token in continuation:
            node = self.child(node, token)

    def tree(self, source: Source) -> TokenTree:
        """What was added, as a tree."""
        return tree_from_lists(self.tokens, self.parents, self.logprobs, source=source)


class LookupDrafter(ABC):
    """Proposes `branches(sequence)` for each request by itself. Subclasses keep what they know."""

    children = Children.FIXED
    source = Source.LOOKUP

    def admit(self, *sequences: Sequence) -> None:  # noqa: B027 - not everyone keeps something
        """Requests start."""

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        """A tree for each request; the root alone where nothing was found."""
        return [self._tree(sequence) for sequence in sequences]

    def observe(  # noqa: B027
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        """Tokens were emitted."""

    def release(self, slot: int) -> None:  # noqa: B027
        """A request is over."""

    @abstractmethod
    def branches(self, sequence: Sequence) -> Branches:
        """Continuations of `sequence`, at most `sequence.max_depth` deep (1 or more)."""

    def _tree(self, sequence: Sequence) -> TokenTree:
        if sequence.max_depth < 1:
            return root_only(sequence.tokens[-1])
        return self.branches(sequence).tree(self.source)


class Passes:
    """Tells when a workload is decoded anew.

    What a drafter learned from earlier requests may serve later ones, but not the same request
    again: repeats of a measurement would find their own answers.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def begins_anew(self, sequence: Sequence) -> bool:
        """Whether this request was here before: forget what was learned since."""
        request = sequence.noise.request
        anew = request in self._seen
        if anew:
            self._seen.clear()
        self._seen.add(request)
        return anew
