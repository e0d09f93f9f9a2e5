"""A tree of one shape in every step (SpecInfer 2305.09781, Sequoia 2402.12374, Medusa's paths)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.drafters.base import Drafter, DrafterContext, Method
from engine.drafters.common import ModelBased
from engine.drafters.model_drafter import ModelDrafter, Policy
from engine.errors import UserError
from engine.growth import Candidates, Chooser, Growth
from engine.options import option
from engine.shapes import Shape, from_expansion, from_paths, optimal, parse_acceptance
from engine.tree import Children


@dataclass(frozen=True, slots=True)
class Options(ModelBased):
    """Three ways to give the shape: the first of paths, acceptance, expansion that is set."""

    expansion: str = option(
        "2,2,1,1", "children per level; SpecInfer's own vector is 1,1,3,1,1,1,1,1",
        tune=("1,1", "1,1,1,1", "2,1", "2,1,1,1", "2,2", "2,2,1", "2,2,1,1", "3,1", "3,1,1",
              "3,2,1", "4", "4,2,1", "4,2,1,1", "1,1,3,1,1,1,1,1"),
    )  # fmt: skip
    paths: str = option("", "explicit rank paths such as 0;1;0.0;0.0.0 instead of the vector")
    acceptance: str = option(
        "",
        "acceptance by rank such as 0.62,0.14,0.05: takes the Sequoia-optimal tree for it;"
        " run:RUN measures it on a stored run",
    )
    nodes: int = option(
        8, "nodes of the Sequoia-optimal tree, root not counted", min=1, max=255, tune=False
    )
    max_depth: int = option(
        6, "deepest level of the Sequoia-optimal tree", min=1, max=32, tune=False
    )


def shape_of(options: Options) -> Shape:
    """The shape these options stand for. Raises UserError."""
    if options.paths:
        return from_paths(options.paths)
    if options.acceptance:
        if options.acceptance.startswith("run:"):
            raise UserError("acceptance=run:RUN is resolved from the run store, which is not here.")
        return optimal(parse_acceptance(options.acceptance), options.nodes + 1, options.max_depth)
    return from_expansion(options.expansion)


def is_chain(options: Options) -> bool:
    """Whether every node of the shape has one child at most."""
    parents_N = shape_of(options).parents_N
    return list(parents_N) == list(range(-1, len(parents_N) - 1))


class _Plan:
    """A shape arranged for growing: per level, the nodes to expand and their children's ranks."""

    def __init__(self, shape: Shape) -> None:
        depth = shape.depths()
        self.levels: list[list[tuple[int, list[int]]]] = [[] for _ in range(max(depth) + 1)]
        kids: dict[int, list[int]] = {}
        for node in range(1, shape.num_nodes):
            kids.setdefault(shape.parents_N[node], []).append(node)
        for parent, nodes in kids.items():
            self.levels[depth[parent]].append((parent, nodes))
        self.ranks = shape.rank_N
        self.num_expanded = len(kids)


def grow(plan: _Plan, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    """Level by level; where a node has fewer choices than the shape asks, the tree is smaller."""
    number = {0: 0}  # node of the shape -> node of the growth
    for level in plan.levels[:max_depth]:
        present = [(parent, kids) for parent, kids in level if parent in number]
        if not present:
            break
        rows = yield [number[parent] for parent, _ in present]
        if not rows:
            break
        for row, (parent, kids) in zip(rows, present, strict=True):
            ranks = [plan.ranks[kid] for kid in kids]
            sampled = chooser.kind is Children.SAMPLED
            wanted = len(kids) if sampled else max(ranks) + 1
            chosen = chooser.choose(growth, number[parent], row, wanted)
            if not sampled and wanted > len(ranks):  # paths that skip a rank
                there = np.asarray([rank for rank in ranks if rank < len(chosen[0])], np.int64)
                chosen = Candidates(*(column_K[there] for column_K in chosen))
            added = growth.add_children(number[parent], *chosen)
            if not sampled:
                for node, rank in zip(added, ranks, strict=False):
                    growth.rank[node] = rank
            number.update(zip(kids, added, strict=False))
    return None


def build(options: Options, context: DrafterContext) -> Drafter:
    """A drafter over the options' shape."""
    plan = _Plan(shape_of(options))
    return ModelDrafter(
        lambda growth, chooser, depth: grow(plan, growth, chooser, depth), options, context
    )


METHOD = Method(
    name="static-tree",
    summary="A tree of one shape in every step: expansion vector, rank paths or Sequoia-optimal.",
    options=Options,
    build=build,
    max_nodes=lambda options: shape_of(options).num_nodes,
    max_draft_rows=lambda options: _Plan(shape_of(options)).num_expanded,
    needs_draft=True,
    chain=is_chain,
    merges=True,
    children=(Children.COUPLED, Children.FIXED, Children.SAMPLED),
)
