"""The verification rules of verify.py over a real target's scores and keyed randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.drafters.base import Sequence
from engine.errors import UserError
from engine.records import Verdict
from engine.sampling import Sampling, Stream, generator, warp
from engine.target import Scores
from engine.tree import Children, TokenTree
from engine.verify import NODE_RULES, Choice, accept_or_resample, match

#: rules by the name a run spec uses; all but "match" need SAMPLED children
RULES = ("match", *NODE_RULES)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges trees by one rule. At temperature 0 every rule is the greedy one."""

    rule: str
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"Verification rule {self.rule!r} is unknown; use {', '.join(RULES)}.")

    def verify(self, tree: TokenTree, scores: Scores, sequence: Sequence) -> Verdict:
        """Which path survives and the token after it."""
        if self.sampling.greedy:
            return match(tree, lambda node: _greedy(scores.logits_NV[node]))
        if self.rule == "match":
            return match(tree, lambda node: self._sample(scores, node, tree, sequence))
        assert tree.children is Children.SAMPLED or tree.num_nodes == 1, "rules 2 and 3 need draws"
        root = sequence.position

        def uniform(node: int, which: int) -> float:
            draws = generator(
                self.sampling, request=sequence.noise.request, position=root,
                stream=Stream.ACCEPT, root=root, node=2 * node + which,
            )  # fmt: skip
            return float(draws.random())

        return accept_or_resample(
            tree,
            NODE_RULES[self.rule],
            lambda node: np.exp(warp(scores.logits_NV[node], self.sampling)),
            lambda child: uniform(child, 0),
            lambda node: uniform(node, 1),
        )

    def _sample(self, scores: Scores, node: int, tree: TokenTree, sequence: Sequence) -> Choice:
        """The target's draw at a node: argmax of log p + the noise keyed by its position."""
        log_p = warp(scores.logits_NV[node], self.sampling)
        position = sequence.position + int(tree.depth_M[node])
        token = int(np.argmax(log_p + sequence.noise.at(position)))
        return Choice(token, lambda other: float(np.exp(log_p[other])))


def _greedy(logits_V: np.ndarray) -> Choice:
    token = int(logits_V.argmax())
    return Choice(token, lambda other: float(other == token))
