"""A tree grown anew each step by what the draft model believes; several policies."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.drafters.auto import AutoDrafter
from engine.drafters.base import Drafter, DrafterContext, Method
from engine.drafters.common import ModelBased
from engine.drafters.model_drafter import Grow, ModelDrafter, Policy
from engine.drafters.policies import POLICIES
from engine.growth import Chooser, Growth
from engine.options import option
from engine.tree import Children

AUTO = "auto"
#: policies by the options that only they use
BY_WIDTH = {"policy": ("eagle2", "best-first", AUTO)}
SIZED = {"policy": tuple(POLICIES)}
TREES = {"policy": (*POLICIES, AUTO)}


@dataclass(frozen=True, slots=True)
class Options(ModelBased):
    """The policy and its bounds. Options that a policy does not use change nothing."""

    policy: str = option(
        "eagle2", "how the tree grows; see docs/methods.md", choices=(*POLICIES, AUTO)
    )
    nodes: int = option(6, "drafted nodes that stay in the tree", min=1, max=255, where=SIZED)
    depth: int = option(4, "deepest level", min=1, max=32, where=TREES)
    top_k: int = option(3, "children proposed per expanded node", min=1, max=64, where=TREES)
    width: int = option(
        0, "frontier nodes expanded per pass by eagle2 and best-first; 0: as many as top_k",
        min=0, max=64, where=BY_WIDTH,
    )  # fmt: skip
    threshold: float = option(
        0.05, "opt-tree stops when a level adds fewer expected tokens than this", min=0, max=1,
        where={"policy": ("opt-tree",)},
    )  # fmt: skip
    most: int = option(
        16, "most drafted nodes of auto, which finds their number", min=1, max=255,
        where={"policy": (AUTO,)},
    )  # fmt: skip
    rounds: int = option(
        4, "growth rounds of grow-and-prune", min=1, max=32, where={"policy": ("grow-and-prune",)}
    )

    @property
    def frontier(self) -> int:
        return self.width or self.top_k


def max_nodes(options: Options) -> int:
    """Most nodes of a tree, the root included."""
    return 1 + (options.most if options.policy == AUTO else options.nodes)


def max_draft_rows(options: Options) -> int:
    """Most nodes that ever run through the draft model in one step."""
    if options.policy == AUTO:
        return 1 + (options.depth - 1) * options.frontier
    return POLICIES[options.policy].max_expanded(options)


def is_chain(options: Options) -> bool:
    """Whether a tree has one child under every node, whatever the draft says."""
    if options.policy == AUTO:
        return options.most == 1
    # the root of grow-and-prune proposes twice as many
    return options.nodes == 1 or (options.top_k == 1 and options.policy != "grow-and-prune")


def children_for(options: Options) -> tuple[Children, ...]:
    """Pruning sampled children would break losslessness: only best-first may sample."""
    if options.policy != AUTO and POLICIES[options.policy].may_sample:
        return (Children.COUPLED, Children.FIXED, Children.SAMPLED)
    return (Children.COUPLED, Children.FIXED)


def grow_by(options: Options, children: Children) -> Grow:
    """The chosen policy, auto excepted, within the options' depth."""
    policy = POLICIES[options.policy]
    grow = policy.sampled if children is Children.SAMPLED else policy.grow
    assert grow is not None

    def within(growth: Growth, chooser: Chooser, depth: int) -> Policy:
        bounds = options
        if growth.budget is not None:
            bounds = replace(options, nodes=min(options.nodes, growth.budget))
        return grow(bounds, growth, chooser, min(depth, options.depth))

    return within


def one_draft_because(options: Options) -> str:
    """Policy auto plans for one draft model."""
    if options.policy != AUTO:
        return ""
    return (
        "Policy auto weighs the passes of one draft model against the target's, and with several"
        " its sums would be wrong. Take another policy, or one draft model."
    )


def build(options: Options, context: DrafterContext) -> Drafter:
    """A drafter that grows its trees by the chosen policy."""
    if options.policy == AUTO:
        return AutoDrafter(options, context)
    return ModelDrafter(grow_by(options, context.children), options, context)


METHOD = Method(
    name="dynamic-tree",
    summary="A tree grown each step where the draft model is confident; the policy says how.",
    options=Options,
    build=build,
    max_nodes=max_nodes,
    max_draft_rows=max_draft_rows,
    needs_draft=True,
    chain=is_chain,
    merges=True,
    one_draft_because=one_draft_because,
    children=(Children.COUPLED, Children.FIXED, Children.SAMPLED),
    children_for=children_for,
)
