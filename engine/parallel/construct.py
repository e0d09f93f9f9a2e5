"""Parallel tree construction: each rank drafts its share of a frontier, all grow the same tree.

Every rank runs the same growth policy over the same candidates. Of a level it runs the draft model
over its own share alone (shares.py), picks the best children there, and one all-gather makes all
ranks' picks known to all: tokens, log-probabilities and scores of the few best, not logits. From
equal candidates equal trees follow: the best n are chosen by the same code over the same numbers,
ties going to the lower node, which has the earlier parent and then the better or lower token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.common import ModelBased
from engine.drafters.model_drafter import Grow, ModelDrafter
from engine.growth import Candidates, Chooser, Growth, Row
from engine.parallel.exchange import Exchange
from engine.parallel.lanes import Lanes
from engine.parallel.shares import Share, Shares
from engine.runner import Nodes
from engine.tree import Children, TokenTree


@dataclass(slots=True)
class SharedChooser(Chooser):
    """Chooses among children that some rank has picked, or picks them from a row."""

    most: int = 1  # children that are picked under a node

    def choose(self, growth: Growth, node: int, row: Row | Candidates, count: int) -> Candidates:
        """As `Chooser.choose`; of picked children the first `count`."""
        if isinstance(row, Candidates):
            assert count <= self.most, f"{count} children are asked for, {self.most} were picked"
            return Candidates(*(column_K[:count] for column_K in row))
        return Chooser.choose(self, growth, node, row, count)


def _shared(usual: Chooser, most: int) -> SharedChooser:
    return SharedChooser(
        kind=usual.kind,
        sampling=usual.sampling,
        noise=usual.noise,
        position=usual.position,
        with_replacement=usual.with_replacement,
        most=most,
    )


class SharedDrafter(ModelDrafter):
    """A `ModelDrafter` that is one of several ranks with the same tree.

    `most_children` is the most that its policy asks for under one node. SAMPLED children need
    whole rows, the verifier too: those are exchanged instead of picks.
    """

    def __init__(
        self,
        grow: Grow,
        options: ModelBased,
        context: DrafterContext,
        *,
        exchange: Exchange,
        most_children: int,
        lanes: Lanes,
    ) -> None:
        super().__init__(grow, options, context)
        self._exchange = exchange
        self._asked = most_children
        self._most = min(most_children, context.vocab_size)
        self._lanes = lanes
        self._choosers: dict[int, SharedChooser] = {}
        self._shares: dict[int, Shares] = {}
        self.num_moved = 0  # subtrees that changed their rank

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        self._shares = {s.slot: Shares(self._exchange.size) for s in sequences}
        trees = super().propose(sequences)
        self.num_moved += sum(shares.num_moved for shares in self._shares.values())
        return trees

    def _grow_all(
        self,
        sequences: list[Sequence],
        growths: dict[int, Growth],
        choosers: dict[int, Chooser],
    ) -> dict[int, list[int] | None]:
        self._choosers = {slot: _shared(chooser, self._asked) for slot, chooser in choosers.items()}
        return super()._grow_all(sequences, growths, dict(self._choosers))

    def _expand(
        self, growths: dict[int, Growth], frontier: dict[int, list[int]]
    ) -> dict[int, list[Row]]:
        """The next level of all requests' trees: this rank's share run, everybody's picks known."""
        shares = {
            slot: self._shares[slot].divide(growths[slot], nodes)
            for slot, nodes in frontier.items()
        }
        mine = {slot: of_ranks[self._exchange.rank] for slot, of_ranks in shares.items()}
        found = self._exchanged(shares, self._run_share(growths, mine))
        by_node = {
            slot: dict(zip(nodes, rows, strict=True)) for slot, (nodes, rows) in found.items()
        }
        return {slot: [by_node[slot][node] for node in nodes] for slot, nodes in frontier.items()}

    def go_on(self, busy: Callable[[], bool]) -> None:
        """Nothing is asked of this rank until `busy`; ranks that draft together wait."""

    # -- this rank's share ---------------------------------------------------------------------

    def _run_share(self, growths: dict[int, Growth], mine: dict[int, Share]) -> list[Any]:
        """One draft pass over what this rank has to run; picks of what it has to expand."""
        batch: dict[int, Nodes] = {}
        for slot, share in mine.items():
            if share.run:
                batch[slot] = self._enter(slot, growths[slot], share.run)
            else:
                growths[slot].passes += 1
                growths[slot].round += 1
        if not batch:
            return []
        with self._lanes.note("draft", "expand"):
            rows = self._pass(batch)
        picked: list[Any] = []
        for slot, share in mine.items():
            ran = dict(zip(share.run, rows.get(slot, [])[-len(share.run) :], strict=False))
            for node in share.expand:
                chooser = self._choosers[slot]
                picked.append(self._picked(chooser, growths[slot], node, ran[node]))
        return picked

    def _picked(self, chooser: Chooser, growth: Growth, node: int, row: Row) -> Candidates | Row:
        if self.children is Children.SAMPLED:
            return row
        return chooser.choose(growth, node, row, self._most)

    # -- everybody's ---------------------------------------------------------------------------

    def _exchanged(
        self, shares: dict[int, list[Share]], own: list[Any]
    ) -> dict[int, tuple[list[int], list[Any]]]:
        """By slot the nodes that were expanded by any rank, and what was picked under each."""
        if self._exchange.size == 1:
            everybody = [own]
        else:
            num_rows = max(
                sum(len(of_ranks[rank].expand) for of_ranks in shares.values())
                for rank in range(self._exchange.size)
            )
            sampled = self.children is Children.SAMPLED
            packed = self._pack_rows(own, num_rows) if sampled else self._pack(own, num_rows)
            with self._lanes.note("network", "all-gather"):
                gathered = self._exchange.all_gather(packed)
            everybody = [_unpack_rows(one) if sampled else _unpack(one) for one in gathered]
        taken = [0] * self._exchange.size
        found: dict[int, tuple[list[int], list]] = {slot: ([], []) for slot in shares}
        for slot, of_ranks in shares.items():
            for rank, share in enumerate(of_ranks):
                begin = taken[rank]
                taken[rank] += len(share.expand)
                found[slot][0].extend(share.expand)
                found[slot][1].extend(everybody[rank][begin : taken[rank]])
        return found

    def _pack(self, own: list, num_rows: int) -> np.ndarray:
        """(F, 1 + 3K): how many children, their tokens, log-probabilities and scores."""
        packed_FX = np.zeros((num_rows, 1 + 3 * self._most))
        for values_X, one in zip(packed_FX, own, strict=False):
            count = len(one.tokens_K)
            values_X[0] = count
            for at, column in enumerate(one):
                begin = 1 + at * self._most
                values_X[begin : begin + count] = column
        return packed_FX

    def _pack_rows(self, own: list, num_rows: int) -> np.ndarray:
        """(F, 1 + V) float32: norm and logits."""
        packed_FX = np.zeros((num_rows, 1 + self._context.vocab_size), np.float32)
        for values_X, one in zip(packed_FX, own, strict=False):
            values_X[0] = one.log_norm
            values_X[1:] = one.logits_V
        return packed_FX


def _unpack(packed_FX: np.ndarray) -> list[Candidates]:
    most = (packed_FX.shape[1] - 1) // 3
    found = []
    for values_X in packed_FX:
        count = int(values_X[0])
        tokens, logprobs, scores = values_X[1:].reshape(3, most)[:, :count]
        found.append(Candidates(tokens.astype(np.int64), logprobs, scores))
    return found


def _unpack_rows(packed_FX: np.ndarray) -> list[Row]:
    return [Row(values_X[1:], values_X[0]) for values_X in packed_FX]
