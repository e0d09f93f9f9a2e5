"""Kangaroo: a few of the target's layers and a trained adapter draft (Liu et al., 2404.18911).

Drafting leaves the target behind its first layers, and ends where the draft is unsure: two exits.
The token that it was unsure of stays, for it has been paid for. The other layers verify from the
hidden states at the exit, as in `early-exit`; the adapter stands where their work is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from engine.drafters import chain_or_tree
from engine.drafters.base import DrafterContext
from engine.drafters.early_exit import ExitDrafter
from engine.drafters.heads import head_for, head_option
from engine.growth import Growth
from engine.heads.kangaroo import KangarooAdapter
from engine.models import LoadedModel
from engine.options import option
from engine.parts import Part, Uses


@dataclass(frozen=True, slots=True)
class Options(chain_or_tree.Options):
    """Which adapter, how far it drafts, and how sure it must be to go on."""

    length: int = option(
        6, "most draft tokens of a chain", min=1, max=64, where={"policy": (chain_or_tree.CHAIN,)}
    )
    head: str = head_option("an adapter")
    confidence: float = option(
        0.6, "drafting ends with a token that the adapter gives less than this", min=0, max=1
    )


class KangarooDrafter(ExitDrafter):
    """Drafts by layers and adapter until the adapter is unsure."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        super().__init__(options, context)
        self._least = math.log(options.confidence) if options.confidence else -math.inf

    def _unsure(self, slot: int, growth: Growth, nodes: list[int]) -> bool:
        """Whether the tree ends here: the adaptive exit of all methods has a say too."""
        adaptive = super()._unsure(slot, growth, nodes)
        return adaptive or max(growth.logprob[node] for node in nodes) < self._least


def uses(options: Options, target: LoadedModel) -> Uses:
    """The layers and the adapter that draft, and the layers that verify. Raises UserError."""
    head = head_for("kangaroo", options.head, target)
    adapter = cast(KangarooAdapter, head.module)
    exit_layer = adapter.exit_layer
    draft = Part(last=exit_layer, taps=(exit_layer,), graft=adapter)
    return Uses(target=Part(first=exit_layer), draft=draft)


METHOD = chain_or_tree.method(
    name="kangaroo",
    summary="The target's first layers and a trained adapter draft, until they are unsure.",
    options=Options,
    build=KangarooDrafter,
    training="an adapter",
    hidden_states=True,
    uses=uses,
)
