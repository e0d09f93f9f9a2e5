"""Options that many methods share, and what they do whatever drafts.

Both come from work on self-speculation, and serve any drafter: the adaptive draft exit of Draft &
Verify (Zhang et al., 2309.08168, section 3.3) and the target's keep-generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.drafters.base import Drafter, Sequence
from engine.options import option
from engine.tree import TokenTree, root_only

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores

#: weight of the past in the running acceptance and in the threshold, and the threshold's step
_ACCEPTANCE_DECAY, _THRESHOLD_DECAY, _STEP = 0.5, 0.9, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Options of every method that drafts."""

    keep_generating: float = option(
        0.0,
        "while the target gave its own token less than this, it goes on alone; 0: off",
        min=0, max=1, common=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBased(Common):
    """Options of every method with a draft model."""

    exit: float = option(
        0.0,
        "stop drafting where the draft is less sure than this, adapted as it goes; 0: off",
        min=0, max=1, common=True,
    )  # fmt: skip
    exit_target: float = option(
        0.9, "acceptance that the exit adapts to", min=0, max=1, common=True
    )


class AdaptiveExit:
    """One request's threshold: raised while too little is accepted, lowered while enough is."""

    def __init__(self, options: ModelBased) -> None:
        self.threshold = options.exit
        self._target = options.exit_target
        self._acceptance = options.exit_target
        self._stopped = False

    def stops(self, logprobs: list[float]) -> bool:
        """Whether the draft is unsure of all the tokens it would go on from."""
        self._stopped = bool(np.exp(max(logprobs)) < self.threshold)
        return self._stopped

    def adapt(self, *, accepted: int, drafted: int) -> None:
        """A chain of `drafted` levels had `accepted` tokens accepted."""
        if drafted == 0:
            return
        self._acceptance += (1 - _ACCEPTANCE_DECAY) * (accepted / drafted - self._acceptance)
        wanted = self.threshold
        if self._acceptance < self._target:
            wanted += _STEP
        elif self._stopped:
            wanted -= _STEP
        self._stopped = False  # the next step may end before it asks
        self.threshold += (1 - _THRESHOLD_DECAY) * (wanted - self.threshold)
        self.threshold = min(max(self.threshold, 0.0), 1.0)


class KeepGenerating:
    """Any drafter, silent while the target is unsure of its own last token."""

    def __init__(self, drafter: Drafter, threshold: float) -> None:
        self.children = drafter.children
        self.setting: str = getattr(drafter, "setting", "")
        self._drafter = drafter
        self._log_threshold = float(np.log(threshold))
        self._alone: set[int] = set()

    def admit(self, *sequences: Sequence) -> None:
        self._drafter.admit(*sequences)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        drafting = [s for s in sequences if s.slot not in self._alone]
        trees = self._drafter.propose(drafting) if drafting else []
        by_slot = {s.slot: tree for s, tree in zip(drafting, trees, strict=True)}
        return [by_slot.get(s.slot) or root_only(s.tokens[-1]) for s in sequences]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        unsure = scores.logprob(verdict.path_A[-1], verdict.next_token) < self._log_threshold
        (self._alone.add if unsure else self._alone.discard)(sequence.slot)
        self._drafter.observe(sequence, tree, verdict, scores)

    def release(self, slot: int) -> None:
        self._alone.discard(slot)
        self._drafter.release(slot)
