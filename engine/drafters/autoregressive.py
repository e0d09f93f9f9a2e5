"""Plain decoding in the same engine: the baseline. The tree is its root alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.drafters.base import DrafterContext, Method, Sequence
from engine.tree import Children, TokenTree, root_only

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores


@dataclass(frozen=True, slots=True)
class Options:
    """Plain decoding has nothing to choose."""


class Autoregressive:
    """Proposes nothing."""

    children = Children.FIXED

    def __init__(self, options: Options, context: DrafterContext) -> None:
        pass

    def admit(self, *sequences: Sequence) -> None:
        pass

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        return [root_only(sequence.tokens[-1]) for sequence in sequences]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        pass

    def release(self, slot: int) -> None:
        pass


METHOD = Method(
    name="autoregressive",
    summary="Plain decoding, one token per target pass: the baseline every method is held against.",
    options=Options,
    build=Autoregressive,
    max_nodes=lambda options: 1,
    chain=lambda options: True,
)
