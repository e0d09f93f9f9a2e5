"""Options of methods that draft from the target itself: a chain, or a tree by a growth policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from engine.drafters import dynamic_tree
from engine.drafters.base import Method
from engine.drafters.model_drafter import Grow
from engine.drafters.policies import POLICIES
from engine.drafters.speculative import chain
from engine.options import option
from engine.tree import Children

CHAIN = "chain"
#: policies by the options that only they use
CHAINS = {"policy": (CHAIN,)}


@dataclass(frozen=True, slots=True)
class Options(dynamic_tree.Options):
    """Those of `dynamic-tree`, and the length of a chain. Options of the other form do nothing."""

    policy: str = option(
        CHAIN, "a chain, or how a tree grows; see docs/methods.md", choices=(CHAIN, *POLICIES)
    )
    length: int = option(4, "draft tokens of a chain", min=1, max=64, where=CHAINS)


def max_nodes(options: Options) -> int:
    """Most nodes of a tree, the root included."""
    if options.policy == CHAIN:
        return 1 + options.length
    return dynamic_tree.max_nodes(options)


def max_draft_rows(options: Options) -> int:
    """Most nodes that ever run through the drafter in one step."""
    if options.policy == CHAIN:
        return options.length
    return dynamic_tree.max_draft_rows(options)


def is_chain(options: Options) -> bool:
    """Whether what is drafted is a chain."""
    return options.policy == CHAIN or dynamic_tree.is_chain(options)


def children_for(options: Options) -> tuple[Children, ...]:
    """Ways to choose children that keep these trees lossless."""
    if options.policy == CHAIN:
        return (Children.COUPLED, Children.FIXED, Children.SAMPLED)
    return dynamic_tree.children_for(options)


def grow_by(options: Options, children: Children) -> Grow:
    """What grows a chain or tree under these options."""
    if options.policy == CHAIN:
        return lambda growth, chooser, depth: chain(options.length, growth, chooser, depth)
    return dynamic_tree.grow_by(options, children)


#: a registry entry for options of this form
method = partial(
    Method,
    max_nodes=max_nodes,
    max_draft_rows=max_draft_rows,
    chain=is_chain,
    children=(Children.COUPLED, Children.FIXED, Children.SAMPLED),
    children_for=children_for,
)
