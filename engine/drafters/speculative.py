"""A chain of draft tokens (Leviathan et al., 2211.17192; Chen et al., 2302.01318)."""

from __future__ import annotations

from dataclasses import dataclass

from engine.drafters.base import Method
from engine.drafters.common import ModelBased
from engine.drafters.model_drafter import ModelDrafter, Policy
from engine.growth import Chooser, Growth
from engine.options import option
from engine.tree import Children


@dataclass(frozen=True, slots=True)
class Options(ModelBased):
    """How long the chain is."""

    length: int = option(4, "draft tokens per step", min=1, max=64)


def chain(length: int, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """One child of one child, `length` deep."""
    node = 0
    for _ in range(min(length, max_depth)):
        rows = yield [node]
        if not rows:
            break
        (node,) = growth.add_children(node, *chooser.choose(growth, node, rows[0], 1))
    return None


METHOD = Method(
    name="speculative",
    summary="A chain of tokens from a draft model, checked in one target pass.",
    options=Options,
    build=lambda options, context: ModelDrafter(
        lambda growth, chooser, depth: chain(options.length, growth, chooser, depth),
        options,
        context,
    ),
    max_nodes=lambda options: options.length + 1,
    max_draft_rows=lambda options: options.length,
    needs_draft=True,
    chain=lambda options: True,
    merges=True,
    children=(Children.COUPLED, Children.FIXED, Children.SAMPLED),
)
