"""Why a node met its fate, in words. The facts are the verdict's; nothing is guessed."""

from __future__ import annotations

import math

import numpy as np

from engine.records import Fate, Origin, StepRecord
from workbench.view.visible import node_label

ROOT = "The last token already written. The draft grows from here."
BONUS = "Every drafted token on this path was accepted; the target adds its own next token."


class Reasons:
    """Answers for one step. `pieces_M` shows each node's token, `emitted` the last one written."""

    def __init__(self, record: StepRecord, *, pieces_M: list[str], emitted: str) -> None:
        self._tree = record.tree
        self._verdict = verdict = record.verdict
        self._num_cut = len(record.emitted) - record.num_kept
        self._pieces = pieces_M
        self._emitted = emitted
        self._chosen = dict(zip(verdict.path_A, verdict.path_A[1:], strict=False))
        self._path = set(verdict.path_A)

    def of_node(self, node: int) -> str:
        """One or two sentences for a node of the tree."""
        if node >= self._tree.num_nodes:
            return self._pruned(node)
        match Fate(int(self._verdict.fate_N[node])):
            case Fate.ROOT:
                return ROOT
            case Fate.ACCEPTED:
                return "The target agreed: it continues with this token here." + self._odds(node)
            case Fate.REJECTED:
                return self._rejected(node)
            case Fate.PRUNED:
                return self._pruned(node)
        return self._not_reached(node)

    def of_emitted(self) -> str:
        """Why the bonus or correction stands at the end of the path."""
        cut = " The request ended before it." if self._num_cut else ""
        if self._verdict.origin is Origin.BONUS:
            return BONUS + cut
        last = self._verdict.path_A[-1]
        tried = int(np.count_nonzero(self._tree.parents_M[: self._tree.num_nodes] == last))
        drafted = "the drafted token was not" if tried == 1 else f"none of {tried} drafted ones was"
        return f"The target's own choice at this point; {drafted}.{cut}"

    def _rejected(self, node: int) -> str:
        parent = int(self._tree.parents_M[node])
        if (sibling := self._chosen.get(parent)) is not None:
            reason = f"The target chose its sibling {self._name(sibling)}."
        else:
            reason = f"The target chose {_quoted(self._emitted)}, which was not drafted here."
        return reason + self._odds(node)

    def _not_reached(self, node: int) -> str:
        parent = int(self._tree.parents_M[node])
        if parent in self._path:
            sibling = self._chosen.get(parent)
            if sibling is None:
                return "Never tested: the request ended before its turn."
            return f"Never tested: its sibling {self._name(sibling)} was accepted first."
        while int(self._tree.parents_M[parent]) not in self._path:
            parent = int(self._tree.parents_M[parent])
        return f"Never tested: its branch was left at {self._name(parent)}."

    def _pruned(self, node: int) -> str:
        when = int(self._tree.round_pruned_M[node])
        growth = f" in growth round {when}" if when >= 0 else ""
        return f"Dropped{growth} for better candidates; the target never scored it."

    def _odds(self, node: int) -> str:
        chance = float(self._verdict.accept_prob_N[node])
        if math.isnan(chance) or chance in (0.0, 1.0):
            return ""
        return f" The rule accepts it {chance:.0%} of the time."

    def _name(self, node: int) -> str:
        return _quoted(self._pieces[node])


def _quoted(piece: str) -> str:
    return f"“{node_label(piece)}”"
