"""The verification rules of verify.py over a real target's scores and keyed randomness."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import numpy as np

from cuda_ext.accept import Settings
from cuda_ext.arrays import GREEDY, MATCH
from engine.device_judging import DeviceJudge
from engine.device_scores import DeviceScores
from engine.drafters.base import Sequence
from engine.errors import UserError
from engine.judging import judge, settings_for
from engine.records import Verdict
from engine.runner import TreeRunner
from engine.sampling import Sampling, Stream, generator, warp
from engine.target import Scores
from engine.tree import Children, TokenTree
from engine.verify import NODE_RULES, Choice, accept_or_resample, match
from engine.verify_paths import TYPICAL, Typical, block, traversal, typical

#: rules that are lossless for SAMPLED children only
DRAWN_RULES = (*NODE_RULES, "block", "traversal")
#: rules that change the output's law, for any children
LOSSY_RULES = ("typical",)
#: rules by the name a run spec uses
RULES = ("match", *DRAWN_RULES, *LOSSY_RULES)
Kernels = Literal["auto", "off"]
#: vocabulary up to which the twin of rule 1 is quicker than NumPy
MATCH_TWIN_UP_TO = 8192


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges trees by one rule. At temperature 0 every rule is the greedy one, and lossless."""

    rule: str
    sampling: Sampling
    typical: Typical = TYPICAL
    #: auto: by compiled code where it has the rule; off: by the rules in Python. The same verdicts
    kernels: str = "auto"
    #: judges trees whose logits stay on a device
    device: DeviceJudge = field(default_factory=DeviceJudge, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"Verification rule {self.rule!r} is unknown; use {', '.join(RULES)}.")
        if self.kernels not in get_args(Kernels):
            raise UserError(f"kernels is {self.kernels!r}; use auto or off.")

    @property
    def settings(self) -> Settings | None:
        """The rule as kernels take it; None: it is judged in Python."""
        if self.kernels == "off":
            return None
        return settings_for(self.rule, self.sampling, self.typical)

    def verify_batch(
        self,
        trees: list[TokenTree],
        scores: list[Scores],
        sequences: list[Sequence],
        runner: TreeRunner,
    ) -> list[Verdict]:
        """A verdict on each tree of one pass of `runner`, in its order."""
        settings = self.settings
        there = [seen for seen in scores if isinstance(seen, DeviceScores)]
        if settings is not None and len(there) == len(scores):
            return self.device.judge(
                settings, trees, there,
                sampling=self.sampling, sequences=sequences, runner=runner,
            )  # fmt: skip
        if settings is None or not self._twin_pays(settings, scores[0].vocab_size):
            return [self.verify(*each) for each in zip(trees, scores, sequences, strict=True)]
        return [
            judge(settings, tree, seen.logits_NV, sampling=self.sampling, sequence=sequence)
            for tree, seen, sequence in zip(trees, scores, sequences, strict=True)
        ]

    def _twin_pays(self, settings: Settings, vocab_size: int) -> bool:
        """Whether compiled code is the quicker one on the host (docs/kernels.md has the times).

        NumPy finds a maximum quicker, and sorts for top-k and top-p at nodes on the path alone.
        """
        if settings.rule == GREEDY or self.sampling.is_cut:
            return False
        return settings.rule != MATCH or vocab_size <= MATCH_TWIN_UP_TO

    def verify(self, tree: TokenTree, scores: Scores, sequence: Sequence) -> Verdict:
        """Which path survives and the token after it, in Python: the rules as they are written."""
        if self.sampling.greedy:
            return match(tree, lambda node: _greedy(scores.best(node)))
        if self.rule == "match":
            return match(tree, lambda node: self._sample(scores, node, tree, sequence))
        if self.rule == "typical":
            return typical(
                tree,
                lambda node: np.exp(warp(scores.logits_NV[node], self.sampling)),
                lambda node: self._sample(scores, node, tree, sequence).token,
                self.typical,
            )
        assert tree.children is Children.SAMPLED or tree.num_nodes == 1, f"{self.rule} needs draws"
        root = sequence.position

        def uniform(node: int, which: int) -> float:
            draws = generator(
                self.sampling, request=sequence.noise.request, position=root,
                stream=Stream.ACCEPT, root=root, node=2 * node + which,
            )  # fmt: skip
            return float(draws.random())

        def probs(node: int) -> np.ndarray:
            return np.exp(warp(scores.logits_NV[node], self.sampling))

        accepting, emitting = partial(uniform, which=0), partial(uniform, which=1)
        if self.rule == "block":
            return block(tree, probs, accepting, emitting)
        if self.rule == "traversal":
            return traversal(tree, probs, accepting, emitting)
        return accept_or_resample(tree, NODE_RULES[self.rule], probs, accepting, emitting)

    def _sample(self, scores: Scores, node: int, tree: TokenTree, sequence: Sequence) -> Choice:
        """The target's draw at a node: argmax of log p + the noise keyed by its position."""
        log_p = warp(scores.logits_NV[node], self.sampling)
        position = sequence.position + int(tree.depth_M[node])
        token = int(np.argmax(log_p + sequence.noise.at(position)))
        return Choice(token, lambda other: float(np.exp(log_p[other])))


def _greedy(token: int) -> Choice:
    return Choice(token, lambda other: float(other == token))
