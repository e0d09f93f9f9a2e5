"""Staged drafting: a trigram runs ahead of the draft model, which runs ahead of the target.

Staged speculative decoding (Spector and Re, 2308.04623). Each pass of the draft model also runs the
trigram's guesses for what it will ask next. Where the draft model chooses a guessed token, what it
thinks behind it is there already, so that one pass draws several draft tokens. The trees are those
of `dynamic-tree` under the same options, node for node; only the passes are fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import ngram
from engine.drafters import dynamic_tree
from engine.drafters.base import Drafter, DrafterContext, Method, Sequence
from engine.drafters.model_drafter import Grow, ModelDrafter
from engine.drafters.ngram import trained
from engine.drafters.policies import POLICIES
from engine.growth import Growth, Row
from engine.options import option
from engine.runner import Nodes
from engine.tree import Children, Source, TokenTree


@dataclass(frozen=True, slots=True)
class Options(dynamic_tree.Options):
    """Those of `dynamic-tree`, and how far the trigram runs ahead."""

    policy: str = option(
        "eagle2", "how the tree grows; see docs/methods.md", choices=tuple(POLICIES)
    )
    width: int = option(
        1,
        "frontier nodes expanded per pass; a pass is saved where all of them were guessed",
        min=0, max=64, where=dynamic_tree.BY_WIDTH,
    )  # fmt: skip
    guesses: int = option(4, "trigram tokens run beside each expanded node", min=1, max=16)
    guess_prob: float = option(0.1, "guesses less likely than this are not run", min=0, max=1)
    model: str = option(
        "auto", "folder of trained counts; auto finds those of the vocabulary, none uses the text"
    )


class StagedDrafter(ModelDrafter):
    """Keeps, for each request's tree, what the draft model said behind guessed tokens."""

    def __init__(self, options: Options, grow: Grow, context: DrafterContext) -> None:
        super().__init__(grow, options, context)
        self._ahead = options
        self._trained = trained(options.model, context)
        self._texts: dict[int, ngram.OwnText] = {}
        self._sequences: dict[int, Sequence] = {}
        #: of a slot's tree: (cache row of the parent, token) -> cache row and logits
        self._guessed: dict[int, dict[tuple[int, int], tuple[int, Row]]] = {}

    def admit(self, *sequences: Sequence) -> None:
        super().admit(*sequences)
        for sequence in sequences:
            self._texts[sequence.slot] = ngram.OwnText(self._trained)
            self._sequences[sequence.slot] = sequence

    def release(self, slot: int) -> None:
        super().release(slot)
        self._texts.pop(slot, None)
        self._sequences.pop(slot, None)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        for sequence in sequences:
            self._texts[sequence.slot].extend(sequence.tokens)
            self._guessed[sequence.slot] = {}
        return super().propose(sequences)

    def _expand(
        self, growths: dict[int, Growth], frontier: dict[int, list[int]]
    ) -> dict[int, list[Row]]:
        """Rows from guesses where there are any; a pass for the other nodes and new guesses."""
        rows: dict[int, dict[int, Row]] = {}
        batch: dict[int, Nodes] = {}
        running: dict[int, list[int]] = {}
        keys: dict[int, list[tuple[int, int]]] = {}
        for slot, nodes in frontier.items():
            growth = growths[slot]
            rows[slot] = self._take(slot, growth, nodes)
            running[slot] = [node for node in nodes if node not in rows[slot]]
            if running[slot]:
                entered = self._enter(slot, growth, running[slot])
                batch[slot], keys[slot] = self._with_guesses(slot, growth, running[slot], entered)
            else:
                growth.round += 1
        found = self._pass(batch) if batch else {}
        for slot, logits in found.items():
            first = int(self._runner.count_B[slot]) - len(logits)
            num_guesses = len(keys[slot])
            known = logits[: len(logits) - num_guesses][-len(running[slot]) :]
            rows[slot] |= dict(zip(running[slot], known, strict=True))
            for at, key in enumerate(keys[slot], len(logits) - num_guesses):
                self._guessed[slot][key] = (first + at, logits[at])
        return {slot: [rows[slot][node] for node in nodes] for slot, nodes in frontier.items()}

    def _take(self, slot: int, growth: Growth, nodes: list[int]) -> dict[int, Row]:
        """Rows of the nodes that were guessed; they are given their cache rows."""
        found = {}
        for node in nodes:
            parent = growth.parents[node]
            if parent < 0:
                continue
            known = self._guessed[slot].get((growth.row[parent], growth.tokens[node]))
            if known is not None:
                growth.row[node], found[node] = known
        return found

    def _with_guesses(
        self, slot: int, growth: Growth, nodes: list[int], entered: Nodes
    ) -> tuple[Nodes, list[tuple[int, int]]]:
        """The nodes that run with the guesses behind each, and a key for each guess."""
        tokens, parents = list(entered.tokens_N), list(entered.parents_N)
        first = int(self._runner.count_B[slot])
        keys: list[tuple[int, int]] = []
        sequence = self._sequences[slot]
        deepest = min(self._ahead.depth, sequence.max_depth) - 1  # leaves need no row
        size = self._runner.loaded.vocab_size
        for node in nodes:
            parent = growth.parents[node]
            if parent >= 0:
                before = growth.tokens[parent]
            else:
                before = sequence.tokens[-2] if len(sequence.tokens) > 1 else -1
            places: list[int] = []
            for guess in ngram.guesses(
                self._texts[slot], before, growth.tokens[node], most=self._ahead.guesses,
                depth=deepest - growth.depth[node], top_k=2, min_prob=self._ahead.guess_prob,
            ):  # fmt: skip
                above = growth.row[node] if guess.parent < 0 else places[guess.parent]
                places.append(first + len(tokens))
                keys.append((above, guess.token))
                tokens.append(guess.token if guess.token < size else 0)
                parents.append(above)
        return Nodes(tokens, parents), keys

    def _before_finish(self, slot: int, growth: Growth) -> None:
        """Tokens that the trigram had guessed cost no pass of their own, and are named."""
        for node in range(1, len(growth)):
            parent_row = growth.row[growth.parents[node]]
            known = self._guessed[slot].get((parent_row, growth.tokens[node]))
            if parent_row >= 0 and known is not None:
                growth.row[node] = known[0]
                growth.source[node] = Source.NGRAM


def build(options: Options, context: DrafterContext) -> Drafter:
    """A drafter that grows its trees by the chosen policy, with the trigram ahead of it."""
    return StagedDrafter(options, dynamic_tree.grow_by(options, context.children), context)


METHOD = Method(
    name="staged",
    summary="A dynamic tree whose draft model is itself sped up by a trigram running ahead.",
    options=Options,
    training="counts, optional",
    build=build,
    max_nodes=lambda options: options.nodes + 1,
    max_draft_rows=lambda options: dynamic_tree.max_draft_rows(options) * (1 + options.guesses),
    needs_draft=True,
    chain=dynamic_tree.is_chain,
    children=(Children.COUPLED, Children.FIXED, Children.SAMPLED),
    children_for=dynamic_tree.children_for,
)
