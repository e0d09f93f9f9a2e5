"""Heads on the target's last hidden state guess several tokens ahead (Medusa, 2401.10774).

Head i guesses the token i + 2 places behind the last one that the target has run; the token between
is the root, which the target chose itself. So head 0 gives the children of the root, head 1 theirs,
whichever they are: all nodes of a depth choose among the same guesses, and one small pass drafts
the tree. Its shape is fixed (engine/rank_paths.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import Common
from engine.drafters.heads import head_for, head_option
from engine.errors import UserError
from engine.heads.medusa_fused import FusedMedusa
from engine.inside import Inside
from engine.options import option
from engine.parts import NORMED, Part, Uses
from engine.rank_paths import (
    Accuracies,
    RankTree,
    best,
    by_worth,
    parse_accuracies,
    published,
)
from engine.shapes import Shape, from_paths
from engine.tree import Children, Source, TokenTree, root_only

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores

#: how often guesses are right where heads do not say (published checkpoints, old cards): the
#: first of each depth, less with every further rank and depth
_UNKNOWN: Accuracies = tuple(
    tuple(0.6 * 0.8**depth * 0.35**rank for rank in range(10)) for depth in range(16)
)


@dataclass(frozen=True, slots=True)
class Options(Common):
    """Which heads, and how their guesses are put together."""

    head: str = head_option("heads")
    tree: str = option(
        "best",
        "best: the worthiest nodes by the heads' accuracies; medusa: the 63 nodes its authors"
        " publish; or rank paths such as 0;1;0.0;0.0.0",
        tune=False,
    )
    nodes: int = option(
        8, "nodes of the best tree, root not counted", min=1, max=255, where={"tree": ("best",)}
    )
    acceptance: str = option(
        "",
        "how often guesses are right, ranks joined by ',' and depths by ';'; empty: as measured"
        " when the heads were made; run:RUN measures it on a stored run",
        tune=False,
    )


def _given_shape(options: Options) -> Shape | None:
    """The shape that is asked for, None where the best one is. Raises UserError."""
    if options.tree == "best":
        return None
    return published() if options.tree == "medusa" else from_paths(options.tree)


def _measured(options: Options) -> Accuracies:
    """The accuracies that are given. Raises UserError."""
    if options.acceptance.startswith("run:"):
        raise UserError("acceptance=run:RUN is resolved from the run store, which is not here.")
    return parse_accuracies(options.acceptance) if options.acceptance else ()


def max_nodes(options: Options) -> int:
    """Most nodes of a tree, root included. Raises UserError for malformed paths or acceptance."""
    _measured(options)
    shape = _given_shape(options)
    return options.nodes + 1 if shape is None else shape.num_nodes


def accuracies_of(card: dict[str, Any], num_heads: int, *, measured: Accuracies = ()) -> Accuracies:
    """How often the guess of each rank is right, by depth: `measured`, else as the card has it.

    A card knows it of text that the target wrote, or of text of the corpus.
    """
    told = card.get("written") or card.get("held_out") or {}
    found = []
    for depth in range(num_heads):
        known = tuple(told.get(str(depth + 2), {}).get("by_rank", ())) or _UNKNOWN[depth]
        own = measured[depth] if depth < len(measured) else ()
        found.append(own + known[len(own) :])
    return tuple(found)


def tree_of(options: Options, accuracies: Accuracies) -> RankTree:
    """The tree that these options stand for under heads as good as that.

    Raises UserError for paths that are longer than there are heads.
    """
    shape = _given_shape(options)
    if shape is None:
        return best(accuracies, options.nodes + 1)
    deepest, num_heads = max(shape.depths()), len(accuracies)
    if deepest > num_heads and options.tree != "medusa":
        raise UserError(
            f"The tree {options.tree!r} is {deepest} deep, and these heads guess {num_heads} tokens"
            f" ahead; give paths of {num_heads} ranks at most."
        )
    return by_worth(shape, accuracies).up_to(num_heads)


class Medusa:
    """Drafts for all requests of a step with one pass of the heads."""

    children = Children.FIXED

    def __init__(self, options: Options, context: DrafterContext) -> None:
        loaded = context.target.loaded
        heads, card = head_for("medusa", options.head, loaded)
        accuracies = accuracies_of(card, heads.num_heads, measured=_measured(options))
        tree = tree_of(options, accuracies)
        depth = int(tree.depth_N.max())
        self._runner = context.target
        self._plans = [_Plan(tree.up_to(level)) for level in range(depth + 1)]
        self._heads = FusedMedusa(heads, max(depth, 1), Inside.of(loaded.model).head)
        self._width = min(int(tree.rank_N.max()) + 1, heads.vocab_size)
        #: slots whose last state is known; without a cache no prompt has run before its first step
        self._seen: set[int] = set()
        self.setting = ""
        if options.tree == "best":  # which one that is, is for people to see
            counts = np.bincount(tree.depth_N)[1:]
            self.setting = f"{' + '.join(map(str, counts))} nodes by depth"

    def admit(self, *sequences: Sequence) -> None:
        if self._runner.use_cache:
            self._seen.update(s.slot for s in sequences if len(s.tokens) > 1)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        drafting = [s for s in sequences if self._drafts(s)]
        guessed = dict(zip([s.slot for s in drafting], self._guess(drafting), strict=True))
        return [
            self._plans[min(s.max_depth, len(self._plans) - 1)].tree(s.tokens[-1], guessed[s.slot])
            if s.slot in guessed
            else root_only(s.tokens[-1])
            for s in sequences
        ]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        self._seen.add(sequence.slot)

    def release(self, slot: int) -> None:
        self._seen.discard(slot)

    def _drafts(self, sequence: Sequence) -> bool:
        wanted = sequence.max_depth > 0 and sequence.budget != 0 and len(self._plans) > 1
        return wanted and sequence.slot in self._seen

    def _guess(self, sequences: list[Sequence]) -> np.ndarray:
        """Best tokens of every head and their log-probabilities, float64 (B, 2, H, K)."""
        if not sequences:
            return np.empty((0, 2, 0, 0))
        states, length_B = self._runner.states[NORMED], self._runner.length_B
        with torch.inference_mode():
            last = [states[s.slot, int(length_B[s.slot]) - 1] for s in sequences]
            logits_HBV = self._heads(torch.stack(last)).float()
            best_HBK, tokens_HBK = logits_HBV.topk(self._width)
            logprob_HBK = best_HBK - logits_HBV.logsumexp(-1, keepdim=True)
            both = torch.stack((tokens_HBK.double(), logprob_HBK.double()))  # one way to the host
            return both.cpu().numpy().transpose(2, 0, 1, 3)


class _Plan:
    """A tree of ranks, and how it becomes one of tokens."""

    def __init__(self, ranks: RankTree) -> None:
        self._ranks = ranks
        self._at = (ranks.depth_N[1:] - 1, ranks.rank_N[1:])
        self._source = np.full(ranks.num_nodes, Source.HEAD, np.uint8)
        self._source[0] = Source.ROOT
        self._round = (ranks.depth_N > 0).astype(np.int16)

    def tree(self, root: int, guessed_2HK: np.ndarray) -> TokenTree:
        """The tree under `root`."""
        total = self._ranks.num_nodes
        tokens_M, logprob_M = np.empty(total, np.int64), np.zeros(total, np.float32)
        tokens_M[0] = root
        tokens_M[1:], logprob_M[1:] = guessed_2HK[0][self._at], guessed_2HK[1][self._at]
        return TokenTree(
            tokens_M=tokens_M,
            parents_M=self._ranks.parents_N,
            depth_M=self._ranks.depth_N,
            rank_M=self._ranks.rank_N,
            draft_logprob_M=logprob_M,
            source_M=self._source,
            round_added_M=self._round,
            round_pruned_M=np.full(total, -1, np.int16),
            num_nodes=total,
            draft_passes=1,
        )


METHOD = Method(
    name="medusa",
    summary="A fixed tree from trained heads that guess ahead from the target's last state.",
    options=Options,
    build=Medusa,
    max_nodes=max_nodes,
    training="heads",
    hidden_states=True,
    uses=lambda options, target: Uses(target=Part(taps=(NORMED,))),
)
