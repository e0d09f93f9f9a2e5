"""The target's first layers draft, the others verify (LayerSkip, Elhoushi et al., 2404.16710).

Behind layer E the target's own final norm and LM head guess the next token. What those layers have
computed of a node is what a full pass would compute there, so the target verifies from the hidden
states at the exit: its first layers run once for every token, drafted and verified together. What
drafting costs is the first layers' share of the guesses that are rejected.

A model trained as usual does not say much behind its first layers; one trained with layer dropout
and an early-exit loss does.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.drafters import chain_or_tree
from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import ModelDrafter
from engine.growth import Growth
from engine.heads.kangaroo import check_exit
from engine.inside import Inside
from engine.models import LoadedModel
from engine.options import option
from engine.parts import Part, Uses
from engine.sharing import SharedRunner
from engine.tree import Source, TokenTree


@dataclass(frozen=True, slots=True)
class Options(chain_or_tree.Options):
    """Where drafting leaves the target, and how far it goes."""

    layers: int = option(
        0, "the target's first layers that draft; 0: a quarter of them", min=0, max=255
    )


class ExitDrafter(ModelDrafter):
    """Drafts by a part of the target over the target's own keys and values.

    All nodes of a finished tree, its leaves too, have run through the part when they are handed
    over, so that verification runs the other layers and nothing else.
    """

    def __init__(self, options: chain_or_tree.Options, context: DrafterContext) -> None:
        super().__init__(chain_or_tree.grow_by(options, context.children), options, context)
        assert isinstance(self._runner, SharedRunner)
        self._shared = self._runner

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        trees = super().propose(sequences)
        if self._shared.use_cache:
            self._shared.run_all({s.slot: tree for s, tree in zip(sequences, trees, strict=True)})
        return trees

    def _before_finish(self, slot: int, growth: Growth) -> None:
        growth.source[1:] = [Source.SELF] * (len(growth) - 1)


def exit_of(options: Options, target: LoadedModel) -> int:
    """Number of layers that draft. Raises UserError for a target without so many to spare."""
    layers = options.layers or max(1, Inside.of(target.model).num_layers // 4)
    check_exit(layers, target)
    return layers


def uses(options: Options, target: LoadedModel) -> Uses:
    """The part that drafts, and the part that verifies."""
    exit_layer = exit_of(options, target)
    draft = Part(last=exit_layer, taps=(exit_layer,))
    return Uses(target=Part(first=exit_layer), draft=draft)


METHOD = chain_or_tree.method(
    name="early-exit",
    summary="The target's first layers draft, and its other layers verify from where they left.",
    options=Options,
    build=ExitDrafter,
    training="layer dropout and exit loss, optional",
    hidden_states=True,
    uses=uses,
)
