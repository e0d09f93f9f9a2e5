"""Drafts from a trigram alone: almost free, and the first stage of `staged`.

Source: staged speculative decoding (Spector and Re, 2308.04623), whose smallest model this is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from engine import ngram
from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import Common
from engine.drafters.lookup import Branches, LookupDrafter
from engine.options import option
from engine.tree import Source


@dataclass(frozen=True, slots=True)
class Options(Common):
    """The tree's bounds, and which counts are used."""

    nodes: int = option(8, "most drafted nodes", min=1, max=255)
    depth: int = option(6, "deepest level", min=1, max=32)
    top_k: int = option(2, "successors tried at each node; 1 is a chain", min=1, max=8)
    min_prob: float = option(0.05, "paths less likely than this are cut", min=0, max=1)
    model: str = option(
        "auto", "folder of trained counts; auto finds those of the vocabulary, none uses the text"
    )


def trained(choice: str, context: DrafterContext) -> ngram.Ngram:
    """The counts that `model` names. Raises UserError for a folder without any."""
    if choice == "none":
        return ngram.empty(context.vocab_size)
    folder: Path | None = Path(choice)
    if choice == "auto":
        runners = [context.target, context.draft] if context.draft else [context.target]
        tokenizer = context.target.loaded.tokenizer
        folder = ngram.find_folder(tokenizer, beside=[runner.loaded.path for runner in runners])
    return ngram.load(folder) if folder else ngram.empty(context.vocab_size)


class NgramDrafter(LookupDrafter):
    """Grows a tree best-first by the trigram's path probabilities."""

    source = Source.NGRAM

    def __init__(self, options: Options, context: DrafterContext) -> None:
        self._options = options
        self._trained = trained(options.model, context)
        self._texts: dict[int, ngram.OwnText] = {}

    def admit(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self._texts[sequence.slot] = ngram.OwnText(self._trained)

    def release(self, slot: int) -> None:
        self._texts.pop(slot, None)

    def branches(self, sequence: Sequence) -> Branches:
        options, tokens = self._options, sequence.tokens
        text = self._texts[sequence.slot]
        text.extend(tokens)
        found = Branches(tokens[-1])
        nodes: list[int] = []
        for guess in ngram.guesses(
            text, tokens[-2] if len(tokens) > 1 else -1, tokens[-1], most=options.nodes,
            depth=min(options.depth, sequence.max_depth), top_k=options.top_k,
            min_prob=options.min_prob,
        ):  # fmt: skip
            above = 0 if guess.parent < 0 else nodes[guess.parent]
            nodes.append(found.child(above, guess.token, math.log(guess.prob)))
        return found


METHOD = Method(
    name="ngram",
    summary="A trigram's guesses, learned from text and from what was written so far.",
    options=Options,
    training="counts, optional",
    build=NgramDrafter,
    max_nodes=lambda options: options.nodes + 1,
)
