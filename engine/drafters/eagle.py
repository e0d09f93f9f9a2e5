"""A trained head foretells the target's features, and so a tree of tokens (EAGLE-3, 2503.01840).

The head is one decoder layer over pairs of a token and the feature of the token before it. Of
tokens that the target has run, the features are the target's; of drafted ones, the head's own. So a
path that was accepted does not stay in the head's cache as it was drafted: its tokens run once
more, with the target's features, in the first pass of the next tree. Trees grow by the policies of
`dynamic-tree`.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from engine.drafters import dynamic_tree
from engine.drafters.base import Drafter, DrafterContext, Method, Sequence
from engine.drafters.heads import head_for, head_option
from engine.drafters.model_drafter import PENDING_ROWS, ModelDrafter
from engine.drafters.policies import POLICIES
from engine.growth import Chooser, Growth
from engine.heads.eagle_model import DRAFTING, FEATURES, NEXT_FEATURES, EagleModel, as_draft
from engine.models import LoadedModel
from engine.options import option
from engine.parts import Part, Uses
from engine.runner import Nodes, TreeRunner
from engine.tree import Children, Source, TokenTree

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores

#: heads as models by target and content: engines over the same target share them
_models: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, LoadedModel]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, slots=True)
class Options(dynamic_tree.Options):
    """Those of `dynamic-tree`, and which head."""

    policy: str = option(
        "eagle2", "how the tree grows; see docs/methods.md", choices=tuple(POLICIES)
    )
    head: str = head_option("a head")


class HeadRunner(TreeRunner):
    """Slots of the head. It keeps its rows even where the engine's cache is off."""

    def __init__(self, loaded: LoadedModel, context: DrafterContext, *, max_tree: int) -> None:
        super().__init__(
            loaded,
            num_slots=context.target.num_slots,
            capacity=context.target.capacity,
            max_tree=max_tree,
            forward=context.forward_for(loaded, DRAFTING),
            uses=Uses(target=DRAFTING),
        )
        self._prefilling = self.eager  # there is nothing below the features to run


class EagleDrafter(ModelDrafter):
    """Grows every request's tree under the head.

    Row t of the head's cache is token t + 1 of the request with the target's feature of position t.
    What the cache lacks of the tokens emitted, `_pending`, are all since the last root.
    """

    def __init__(self, options: Options, context: DrafterContext) -> None:
        loaded = model_for(options, context.target.loaded)
        assert isinstance(loaded.model, EagleModel)
        self._head = loaded.model.head
        self._target_runner = context.target
        self._most_pending = max(PENDING_ROWS, options.depth + 1)
        rows = dynamic_tree.max_draft_rows(options) + self._most_pending
        runner = HeadRunner(loaded, context, max_tree=rows)
        grow = dynamic_tree.grow_by(options, context.children)
        super().__init__(grow, options, context._replace(draft=runner))

    def admit(self, *sequences: Sequence) -> None:
        has_run = self._target_runner.use_cache
        known = []
        for sequence in sequences:
            rows = sequence.tokens[1:-1] if has_run else []
            self._write_features(sequence.slot, first=0, count=len(rows))
            known.append(replace(sequence, tokens=[*rows, sequence.tokens[-1]]))
        super().admit(*known)
        for sequence in sequences:
            self._pending[sequence.slot] = self._lacking(sequence) if has_run else []

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        # drafted rows hold the head's own features: not even those of accepted tokens stay
        self._rows[sequence.slot] = [-1] * len(tree.tokens_M)
        super().observe(sequence, tree, verdict, scores)
        self._pending[sequence.slot] = self._lacking(sequence)

    def _lacking(self, sequence: Sequence) -> list[int]:
        """Tokens without a row. The first of all never has one: no feature comes before it."""
        return sequence.tokens[1 + int(self._runner.length_B[sequence.slot]) :]

    def _grow_all(
        self,
        sequences: list[Sequence],
        growths: dict[int, Growth],
        choosers: dict[int, Chooser],
    ) -> dict[int, list[int] | None]:
        ready = {slot: chooser for slot, chooser in choosers.items() if self._pending[slot]}
        return super()._grow_all(sequences, growths, ready)

    def _catch_up(self, slot: int) -> None:
        pending = self._pending[slot]
        if len(pending) > self._most_pending:
            first = int(self._runner.length_B[slot])
            self._write_features(slot, first=first, count=len(pending) - 1)
            self._runner.extend(slot, pending[:-1])
            self._pending[slot] = pending[-1:]

    def _enter(self, slot: int, growth: Growth, nodes: list[int]) -> Nodes:
        new = super()._enter(slot, growth, nodes)
        start, count = int(self._runner.length_B[slot]), len(new.tokens_N)
        if nodes[0] == 0:
            self._write_features(slot, first=start, count=count)
            return new
        first = start + int(self._runner.count_B[slot])
        above = start + torch.tensor(new.parents_N, device=self._runner.loaded.device)
        states = self._runner.states
        states[FEATURES][slot, first : first + count] = states[NEXT_FEATURES][slot, above]
        return new

    def _write_features(self, slot: int, *, first: int, count: int) -> None:
        """Features of rows, by the states of positions that the target has run."""
        span = slice(first, first + count)
        with torch.inference_mode():
            states = self._target_runner.states
            read = [states[point][slot, span] for point in self._head.shape.points]
            self._runner.states[FEATURES][slot, span] = self._head.read(read)

    def _before_finish(self, slot: int, growth: Growth) -> None:
        growth.source[1:] = [Source.HEAD] * (len(growth) - 1)


def model_for(options: Options, target: LoadedModel) -> LoadedModel:
    """The head as a model. Raises UserError where there is none that fits the target."""
    head = head_for("eagle", options.head, target)
    known = _models.setdefault(target.model, {})
    key = head.module.content_hash
    if key not in known:
        known[key] = as_draft(head.module, target)
    return known[key]


def uses(options: Options, target: LoadedModel) -> Uses:
    """The states that make a feature. Raises UserError."""
    loaded = model_for(options, target)
    assert isinstance(loaded.model, EagleModel)
    return Uses(target=Part(taps=tuple(sorted(set(loaded.model.head.shape.points)))))


def build(options: Options, context: DrafterContext) -> Drafter:
    """A drafter that grows its trees by the chosen policy under the head."""
    return EagleDrafter(options, context)


METHOD = Method(
    name="eagle",
    summary="A trained one-layer head goes on from the target's features and grows a tree.",
    options=Options,
    build=build,
    max_nodes=dynamic_tree.max_nodes,
    training="a head",
    hidden_states=True,
    uses=uses,
    chain=dynamic_tree.is_chain,
    children=(Children.COUPLED, Children.FIXED, Children.SAMPLED),
    children_for=dynamic_tree.children_for,
)
