"""Drafting with a draft model: a growth policy per tree, batched passes for all requests.

A policy is a generator over one tree: it yields the nodes it wants expanded, is sent a row of draft
logits for each, and returns the nodes that stay (None: all). Passes of all requests run together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from engine.candidates import DraftRows, Place
from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.common import AdaptiveExit, ModelBased
from engine.growth import Chooser, Growth, Row
from engine.runner import Nodes
from engine.sharing import SharedRunner
from engine.tree import TokenTree, root_only

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores

#: tokens emitted since the draft model last ran that a pass takes along
PENDING_ROWS = 8

Policy = Generator[list[int], list[Row], list[int] | None]
#: A policy that is sent no rows is asked to stop there.
#: (growth, chooser, deepest useful level) -> a running policy
Grow = Callable[[Growth, Chooser, int], Policy]


class ModelDrafter:
    """Grows every request's tree by `grow` under the draft model.

    The draft cache holds the accepted sequence but for `_pending`: tokens emitted since it last
    ran, whose last one is the root. After a path accepted to an unexpanded leaf that is two.
    """

    def __init__(self, grow: Grow, options: ModelBased, context: DrafterContext) -> None:
        assert context.draft is not None
        self.grow = grow
        self.children = context.children
        self._context = context
        self._runner = context.draft
        self._pending: dict[int, list[int]] = {}
        self._rows: dict[int, list[int]] = {}  # draft cache row of each node of the last tree
        self._num_pending: dict[int, int] = {}  # pending rows that ran in the last tree
        #: of requests under way, and how far below the accepted sequence each row of their trees is
        self._sequences: dict[int, Sequence] = {}
        self._depth: dict[int, list[int]] = {}
        self._draft_rows = DraftRows(
            self._runner.loaded,
            kind=context.children,
            sampling=context.sampling,
            vocab_size=context.vocab_size,
            on_device=context.on_device if context.kernels else False,
            noise=context.noise,
        )
        self._options = options
        self._exits: dict[int, AdaptiveExit] = {}
        if isinstance(self._runner, SharedRunner):
            self._runner.node_rows = self._rows

    def admit(self, *sequences: Sequence) -> None:
        self._runner.admit_all({s.slot: self._known(s.tokens[:-1]) for s in sequences})
        for sequence in sequences:
            self._pending[sequence.slot] = [sequence.tokens[-1]]
            self._num_pending[sequence.slot] = 0
            if self._options.exit:
                self._exits[sequence.slot] = AdaptiveExit(self._options)

    def release(self, slot: int) -> None:
        self._runner.release(slot)
        self._pending.pop(slot, None)
        self._exits.pop(slot, None)
        self._sequences.pop(slot, None)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        growths = {s.slot: Growth([s.tokens[-1]], budget=s.budget) for s in sequences}
        choosers: dict[int, Chooser] = {}
        for s in sequences:
            self._num_pending[s.slot] = 0
            self._sequences[s.slot], self._depth[s.slot] = s, []
            if deepest(s) >= 1:
                choosers[s.slot] = Chooser(
                    kind=self.children,
                    sampling=self._context.sampling,
                    noise=s.noise,
                    position=s.position,
                    with_replacement=self._context.with_replacement,
                    kernels=self._context.kernels,
                )
        kept = self._grow_all(sequences, growths, choosers)
        trees = []
        for s in sequences:
            if s.slot not in kept:
                self._rows[s.slot] = [-1]
                trees.append(root_only(s.tokens[-1]))
                continue
            self._before_finish(s.slot, growths[s.slot])
            tree, self._rows[s.slot] = growths[s.slot].finish(self.children, kept[s.slot])
            trees.append(tree)
        return trees

    def _grow_all(
        self,
        sequences: list[Sequence],
        growths: dict[int, Growth],
        choosers: dict[int, Chooser],
    ) -> dict[int, list[int] | None]:
        """Grow the trees of the requests that have a chooser, together.

        Returns the nodes that stay of each tree that was begun (None: all).
        """
        kept: dict[int, list[int] | None] = {}
        policies: dict[int, Policy] = {}
        frontier: dict[int, list[int]] = {}
        for s in sequences:
            if s.slot not in choosers:
                continue
            policies[s.slot] = self.grow(growths[s.slot], choosers[s.slot], deepest(s))
            try:
                frontier[s.slot] = next(policies[s.slot])
            except StopIteration as stop:  # nothing is worth drafting here
                kept[s.slot] = stop.value
                continue
            self._catch_up(s.slot)
        while frontier:
            logits = self._expand(growths, frontier)
            for slot, rows in logits.items():
                try:
                    frontier[slot] = policies[slot].send(rows)
                    if self._unsure(slot, growths[slot], frontier[slot]):
                        policies[slot].send([])
                except StopIteration as stop:
                    kept[slot] = stop.value
                    del frontier[slot]
        return kept

    def _unsure(self, slot: int, growth: Growth, nodes: list[int]) -> bool:
        """Whether the adaptive exit ends the tree here."""
        there = self._exits.get(slot)
        return there is not None and there.stops([growth.logprob[node] for node in nodes])

    def _before_finish(self, slot: int, growth: Growth) -> None:
        """The tree of this slot is about to be assembled."""

    def _expand(
        self, growths: dict[int, Growth], frontier: dict[int, list[int]]
    ) -> dict[int, list[Row]]:
        """One draft pass over the frontier nodes of all requests: a row for each."""
        batch = {slot: self._enter(slot, growths[slot], nodes) for slot, nodes in frontier.items()}
        rows = self._pass(batch)
        return {slot: rows[slot][-len(nodes) :] for slot, nodes in frontier.items()}

    def _enter(self, slot: int, growth: Growth, nodes: list[int]) -> Nodes:
        """What must run to expand `nodes`; they are given their cache rows, the last ones of it."""
        growth.passes += 1
        growth.round += 1
        if nodes[0] == 0:  # the root: everything the draft cache lacks runs before it
            pending = self._pending[slot]
            growth.row[0] = len(pending) - 1
            self._num_pending[slot] = len(pending)
            return Nodes(self._known(pending), list(range(-1, len(pending) - 1)))
        first = int(self._runner.count_B[slot])
        for at, node in enumerate(nodes):
            growth.row[node] = first + at
        return Nodes(
            [growth.tokens[node] for node in nodes],
            [growth.row[growth.parents[node]] for node in nodes],
        )

    def _pass(self, batch: dict[int, Nodes]) -> dict[int, list[Row]]:
        """Run new nodes of all requests: a row of draft logits for each of them."""
        found = self._runner.forward(batch)
        rows = self._draft_rows.of(found, {slot: self._place(slot, batch[slot]) for slot in batch})
        return {
            slot: rows[found.first[slot] : found.first[slot] + len(new.tokens_N)]
            for slot, new in batch.items()
        }

    def _place(self, slot: int, new: Nodes) -> Place:
        """Where children of new nodes of a slot stand: those of the root, the next to come."""
        depth, sequence = self._depth[slot], self._sequences[slot]
        first = len(depth)
        for parent in new.parents_N:
            depth.append(depth[parent] + 1 if parent >= 0 else 0)
        root = self._num_pending[slot] - 1
        return Place(sequence.noise, [sequence.position + at - root for at in depth[first:]])

    def _catch_up(self, slot: int) -> None:
        """Where others drafted for a while, more may be pending than a pass has room for."""
        pending = self._pending[slot]
        if len(pending) > PENDING_ROWS:
            self._runner.extend(slot, self._known(pending[:-1]))
            self._pending[slot] = pending[-1:]

    def _known(self, tokens: list[int]) -> list[int]:
        """Tokens beyond a smaller vocabulary read as token 0: that costs acceptance, not tokens."""
        size = self._runner.loaded.vocab_size
        if size >= self._context.vocab_size:
            return tokens
        return [token if token < size else 0 for token in tokens]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        slot = sequence.slot
        ran, self._num_pending[slot] = self._num_pending[slot], 0
        if ran and slot in self._exits:
            deepest = int(tree.depth_M[: tree.num_nodes].max())
            self._exits[slot].adapt(accepted=verdict.num_accepted, drafted=deepest)
        if ran:  # else nothing was drafted, and the draft cache stands still
            rows = list(range(ran))
            for node in verdict.path_A[1:]:
                if self._rows[slot][node] < 0:
                    break
                rows.append(self._rows[slot][node])
            self._runner.keep(slot, rows)
        # not from the verdict: of a merged tree another draft's path may have gone further
        self._pending[slot] = sequence.tokens[int(self._runner.length_B[slot]) :]


def deepest(sequence: Sequence) -> int:
    """The deepest level that could be of use: within a budget of n nodes no path is longer."""
    if sequence.budget is None:
        return sequence.max_depth
    return min(sequence.max_depth, sequence.budget)
