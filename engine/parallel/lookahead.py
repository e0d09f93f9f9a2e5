"""Drafting the likely next tree while the target still scores this one.

The guess: the target accepts the path of the draft's first choices down to its leaf, and goes on
with the draft's first choice there. From that token the drafter grows the next tree as it would, on
rows behind those of the current tree, and remembers what it picked. Where the guess comes true, the
next tree's first levels are there without a pass; what is grown below them runs their rows again in
the same pass. Where it does not, the picks are forgotten. Trees are the same either way: a pick
depends on the tokens before it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from engine.drafters.base import Sequence
from engine.drafters.model_drafter import deepest
from engine.growth import Candidates, Growth, Row
from engine.parallel.construct import SharedDrafter
from engine.runner import Nodes
from engine.tree import TokenTree

Path = tuple[int, ...]
#: runs nodes of one request's lookahead; is sent a row for each
Ahead = Generator[Nodes, list[Row], None]


@dataclass(slots=True)
class Guess:
    """How a request may go on, and what was picked for that case, by path from the new root."""

    tokens: list[int]  # prompt and everything emitted, the guessed tokens included
    picked: dict[Path, Candidates | Row] = field(default_factory=dict)


class LookaheadDrafter(SharedDrafter):
    """A `SharedDrafter` alone on its rank that drafts ahead while nothing is asked of it."""

    def __init__(self, *arguments, **how) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*arguments, **how)
        assert self._exchange.size == 1, "ranks could not agree on how far to look ahead"
        self._seen: dict[int, dict[Path, Candidates | Row]] = {}  # picks of the current tree
        self._current: dict[int, tuple[Sequence, TokenTree]] = {}
        self._guesses: dict[int, Guess] = {}
        self.num_guesses = self.num_hits = 0

    # -- the next tree, where it was guessed ---------------------------------------------------

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        for s in sequences:
            guess = self._guesses.pop(s.slot, None)
            hit = guess is not None and guess.tokens == s.tokens
            self._seen[s.slot] = guess.picked if guess is not None and hit else {}
            self.num_hits += hit
        trees = super().propose(sequences)
        self._current = {s.slot: (s, tree) for s, tree in zip(sequences, trees, strict=True)}
        return trees

    def _expand(
        self, growths: dict[int, Growth], frontier: dict[int, list[int]]
    ) -> dict[int, list[Row]]:
        paths = {
            slot: [_path(growths[slot], node) for node in nodes] for slot, nodes in frontier.items()
        }
        unknown = {}
        for slot, nodes in frontier.items():
            seen = self._seen[slot]
            left = [n for n, path in zip(nodes, paths[slot], strict=True) if path not in seen]
            if left:
                unknown[slot] = left
            else:
                growths[slot].passes += 1
                growths[slot].round += 1
        found = super()._expand(growths, unknown) if unknown else {}
        for slot, nodes in unknown.items():
            for node, row in zip(nodes, found[slot], strict=True):
                self._seen[slot][_path(growths[slot], node)] = row
        return {slot: [self._seen[slot][path] for path in paths[slot]] for slot in frontier}  # type: ignore[misc]

    def _enter(self, slot: int, growth: Growth, nodes: list[int]) -> Nodes:
        """As usual; the root may come along with what hangs on it, where its picks were known."""
        if nodes[0] != 0 or len(nodes) == 1:
            return super()._enter(slot, growth, nodes)
        before = super()._enter(slot, growth, [0])
        for at, node in enumerate(nodes[1:], len(before.tokens_N)):
            growth.row[node] = at
        return Nodes(
            [*before.tokens_N, *(growth.tokens[node] for node in nodes[1:])],
            [*before.parents_N, *(growth.row[growth.parents[node]] for node in nodes[1:])],
        )

    def release(self, slot: int) -> None:
        super().release(slot)
        self._current.pop(slot, None)
        self._guesses.pop(slot, None)

    # -- looking ahead -------------------------------------------------------------------------

    def go_on(self, busy: Callable[[], bool]) -> None:
        """Draft ahead for all requests under way until `busy` or there is nothing left to do."""
        current, self._current = self._current, {}
        going = {slot: self._ahead(*last) for slot, last in current.items()}
        wanted: dict[int, Nodes] = {}
        answers: dict[int, list[Row]] = {}
        while not busy():
            for slot, ahead in list(going.items()):
                try:
                    wanted[slot] = ahead.send(answers.get(slot))  # type: ignore[arg-type]
                except StopIteration:
                    del going[slot]
                    wanted.pop(slot, None)
            if not wanted:
                return
            with self._lanes.note("draft", "look ahead"):
                answers = self._pass(wanted)

    def _ahead(self, sequence: Sequence, tree: TokenTree) -> Ahead:
        """Run what the guess needs, then grow the tree that would follow."""
        slot = sequence.slot
        path = _first_choices(tree)
        if len(path) > sequence.max_depth:
            return  # nothing will be drafted after that
        tokens = [int(tree.tokens_M[node]) for node in path]
        last = self._seen[slot].get(tuple(tokens))
        missing = self._missing(slot, tree, path)
        if missing.tokens_N:
            rows = yield missing
            last = last or self._picked(self._choosers[slot], *_tip(tokens), rows[-1])
        if last is None:  # its picks fell to a tree that the policy stopped early
            return
        following = _first(last)
        guess = Guess([*sequence.tokens, *tokens[1:], following])
        self._guesses[slot] = guess
        self.num_guesses += 1
        yield from self._grow_from(sequence, guess, above=self._rows[slot][path[-1]])

    def _missing(self, slot: int, tree: TokenTree, path: list[int]) -> Nodes:
        """Rows of the path that never ran, and of pending tokens; they are given their rows."""
        rows, nodes = self._rows[slot], Nodes([], [])
        at = int(self._runner.count_B[slot])
        if rows[0] < 0:
            pending = self._pending[slot]
            self._num_pending[slot] = len(pending)
            nodes = Nodes(list(self._known(pending)), list(range(-1, len(pending) - 1)))
            rows[0] = len(pending) - 1
            at = len(pending)
        for above, node in pairwise(path):
            if rows[node] < 0:
                rows[node], at = at, at + 1
                nodes.tokens_N.append(int(tree.tokens_M[node]))  # type: ignore[union-attr]
                nodes.parents_N.append(rows[above])  # type: ignore[union-attr]
        return nodes

    def _grow_from(self, sequence: Sequence, guess: Guess, *, above: int) -> Ahead:
        """The tree as it would grow behind the guessed tokens, hung on cache row `above`."""
        slot = sequence.slot
        new = len(guess.tokens) - len(sequence.tokens)
        ahead = Sequence(
            slot, guess.tokens, sequence.remaining - new, sequence.noise, sequence.budget
        )
        if deepest(ahead) < 1:
            return
        growth = Growth(guess.tokens[-1:], budget=ahead.budget)
        chooser = replace(self._choosers[slot], position=ahead.position)
        policy = self.grow(growth, chooser, deepest(ahead))
        try:
            nodes = next(policy)
            while True:
                first = int(self._runner.count_B[slot])
                for at, node in enumerate(nodes):
                    growth.row[node] = first + at
                if first + len(nodes) > self._runner.max_tree:
                    return
                rows = yield Nodes(
                    self._known([growth.tokens[node] for node in nodes]),
                    [growth.row[growth.parents[node]] if node else above for node in nodes],
                )
                picked = [
                    self._picked(chooser, growth, node, row)
                    for node, row in zip(nodes, rows, strict=True)
                ]
                for node, one in zip(nodes, picked, strict=True):
                    guess.picked[_path(growth, node)] = one
                nodes = policy.send(picked)  # type: ignore[arg-type]
        except StopIteration:
            return


def _path(growth: Growth, node: int) -> Path:
    """Tokens from the root to a node, both included."""
    found = []
    while node >= 0:
        found.append(growth.tokens[node])
        node = growth.parents[node]
    return tuple(reversed(found))


def _first_choices(tree: TokenTree) -> list[int]:
    """Nodes from the root down by each node's first child, to a leaf."""
    path, children = [0], tree.children_of()
    while children[path[-1]]:
        path.append(children[path[-1]][0])
    return path


def _tip(tokens: list[int]) -> tuple[Growth, int]:
    """A chain of these tokens, and its last node: what a chooser asks of a tree."""
    growth, node = Growth(tokens[:1]), 0
    for token in tokens[1:]:
        growth.tokens.append(token)
        growth.parents.append(node)
        growth.depth.append(growth.depth[node] + 1)
        node += 1
    return growth, node


def _first(last: Candidates | Row) -> int:
    """The draft's first choice; of whole rows, whose children are drawn, the likeliest token."""
    return int(last.tokens_K[0] if isinstance(last, Candidates) else last.logits_V.argmax())
