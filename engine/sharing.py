"""A second runner over a target's own cache: what self-speculation drafts with.

It runs a part of the model and writes keys, values and hidden states of the tree under way to rows
behind the committed ones. The owner verifies in the same rows, and its commit is the commit of
both, so that nothing a draft has written is ever read as the target's.
"""

from __future__ import annotations

from functools import cached_property

import torch

from engine.forward import Forward
from engine.models import LoadedModel
from engine.parts import Part, Uses
from engine.room import Room
from engine.runner import Nodes, TreeRunner
from engine.tree import TokenTree


class SharedRunner(TreeRunner):
    """Grows trees over the cache of `owner`, whose length and tokens are its own.

    The owner admits, commits and releases first; rows of this runner's tree are free after that.
    """

    def __init__(
        self,
        owner: TreeRunner,
        part: Part,
        *,
        forward: Forward | None = None,
        loaded: LoadedModel | None = None,
    ) -> None:
        """`loaded`: what the owner runs, where that is a share of `owner.loaded`."""
        self._owner = owner
        super().__init__(
            loaded or owner.loaded,
            num_slots=owner.num_slots,
            capacity=owner.capacity,
            max_tree=owner.max_tree,
            use_cache=owner.use_cache,
            forward=forward,
            uses=Uses(target=part),
        )
        self.length_B = owner.length_B
        self._history = owner._history
        #: tree row of every node of a slot's last tree, -1: it never ran; told by the drafter
        self.node_rows: dict[int, list[int]] = {}

    def _make_room(self) -> Room:
        self.rows_per_slot = self._owner.rows_per_slot
        return self._owner.room

    def admit_all(self, prefixes: dict[int, list[int]]) -> None:
        """The owner has run the prefixes; a graft has keys and values of its own to fill."""
        for slot in prefixes:
            self.active_B[slot] = True
            self._clear_tree(slot)
        if self.part.graft is None or not self.use_cache:
            return
        known = {slot: tokens_P[: self.length_B[slot]] for slot, tokens_P in prefixes.items()}
        self.length_B[list(known)] = 0
        self._read(known)

    def run_all(self, trees: dict[int, TokenTree]) -> dict[int, list[int]]:
        """Run the scored nodes that have not run yet; gives the tree row of every scored node."""
        batch: dict[int, Nodes] = {}
        for slot, tree in trees.items():
            first = int(self.count_B[slot])
            if not first:  # nothing was drafted here in this step
                self.node_rows[slot] = [-1] * tree.num_nodes
            rows = self.node_rows[slot]
            rest = [node for node in range(tree.num_nodes) if rows[node] < 0]
            parents = []
            for at, node in enumerate(rest):  # parents come first
                parent = int(tree.parents_M[node])
                parents.append(rows[parent] if parent >= 0 else -1)
                rows[node] = first + at
            if rest:
                batch[slot] = Nodes(tree.tokens_M[rest], parents)
        if batch:
            self.forward(batch)
        return {slot: self.node_rows[slot][: tree.num_nodes] for slot, tree in trees.items()}

    def arrange(self, slot: int, rows_N: list[int]) -> None:
        """Bring what a part that leaves early has written into the order of the nodes.

        Node n of the tree was run as tree row `rows_N[n]`.
        """
        if rows_N == list(range(len(rows_N))):
            return
        start = int(self.length_B[slot])
        kept = torch.tensor(rows_N, device=self._written[0].device) + start
        for store in self._written:
            store[slot, start : start + len(rows_N)] = store[slot, kept]

    @cached_property
    def _written(self) -> list[torch.Tensor]:
        """Keys, values and the states at the exit, (slots, rows, ...)."""
        assert self.part.last is not None
        layers = list(range(self.part.last))
        if self.part.graft is not None:  # the graft's come last
            layers.append(len(self.keys) - 1)
        kept = [store[layer] for layer in layers for store in (self.keys, self.values)]
        return [self.states[self.part.last], *kept]

    def extend(self, slot: int, tokens: list[int]) -> None:
        raise AssertionError("the owner commits")

    def truncate(self, slot: int, length: int) -> None:
        raise AssertionError("the owner commits")

    def keep(self, slot: int, rows_A: list[int]) -> None:
        """Forget the tree: the owner has committed what was accepted."""
        self._clear_tree(slot)

    def release(self, slot: int) -> None:
        self.active_B[slot] = False
        self._clear_tree(slot)
        self.node_rows.pop(slot, None)
