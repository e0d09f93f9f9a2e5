"""Measuring a loaded pair: the forwards a run would use, and passes over them in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from engine.costs import PairCost, contexts_up_to, measure, sizes_up_to
from engine.errors import UserError

if TYPE_CHECKING:
    from engine.models import LoadedModel
    from workbench.models import Pair

#: draft passes are over the frontier of a tree, which is narrower than the tree
_DRAFT_SHARE = 2
#: rows of each request up to which a batch is measured at least
_ROWS_EACH = 3


class Extent(NamedTuple):
    """How much is measured."""

    nodes: int = 32  # most nodes of a target pass, those of further requests aside
    batch: int = 1  # requests in a pass
    contexts: int = 4
    rounds: int = 16


class Measured(NamedTuple):
    """Costs, and the mode in which they were measured."""

    costs: PairCost
    mode: str


def measure_pair(
    pair: Pair,
    *,
    execution: str,
    extent: Extent,
    on_progress: Callable[[str, str, float | None], None],
    should_stop: Callable[[], bool],
) -> Measured:
    """Time passes of both models at all sizes and contexts.

    `on_progress` is told phase, sentence and share; it may raise to cancel a compilation.

    Raises:
        UserError: vocabularies that differ, an architecture that cannot run trees.
        StoppedError: `should_stop` said so.
    """
    from engine.engine import EngineConfig
    from engine.execution import forwards_for
    from engine.pairing import check_same_vocabulary
    from engine.parts import Part
    from engine.registry import parse_options
    from engine.runner import TreeRunner
    from engine.sampling import Sampling
    from engine.selfcheck import check_tree_attention

    assert pair.draft is not None
    check_same_vocabulary(pair.target, pair.draft)
    models = [pair.target, pair.draft]
    for loaded in models:
        check_tree_attention(loaded)
    config = EngineConfig(
        method="autoregressive",
        options=parse_options("autoregressive", {}),
        sampling=Sampling(),
        execution=execution,
        batch=extent.batch,
        on_progress=on_progress,
    )
    forwards, mode = forwards_for([(one, Part()) for one in models], config)
    most = max(extent.batch - 1 + extent.nodes, _ROWS_EACH * extent.batch)
    nodes = (most, max(2 * extent.batch, extent.nodes // _DRAFT_SHARE))
    room = _room(models, extent)
    target, draft = (
        TreeRunner(loaded, num_slots=extent.batch, capacity=room, max_tree=most, forward=forward)
        for loaded, most, forward in zip(models, nodes, forwards, strict=True)
    )
    costs = measure(
        target,
        draft,
        target_nodes=sizes_up_to(nodes[0]),
        draft_nodes=sizes_up_to(nodes[1]),
        contexts=contexts_up_to(room, extent.contexts),
        rounds=extent.rounds,
        on_progress=lambda share: on_progress("measure", "Measuring passes", share),
        should_stop=should_stop,
    )
    return Measured(costs, mode)


def _room(models: list[LoadedModel], extent: Extent) -> int:
    """Tokens that both models can hold beside a tree."""
    room = min(loaded.context_length for loaded in models) - extent.nodes - 1
    if room < 2:
        raise UserError(
            f"A tree of {extent.nodes} nodes does not fit into a context of"
            f" {room + extent.nodes + 1} tokens; lower --nodes."
        )
    return room
