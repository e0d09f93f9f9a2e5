"""What a method must be to draft on several ranks, and what its trees ask of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from engine.shapes import Shape


class Divisible(NamedTuple):
    """What of a method's options matters to ranks that draft together."""

    most_children: Callable[[Any], int]  # most that its policy asks for under one node
    levels: Callable[[Any], int]  # most draft passes of one tree


def _ranks(shape: Shape) -> int:
    return max(shape.rank_N) + 1


def _static_shape(options: Any) -> Shape:
    from engine.drafters.static_tree import shape_of

    return shape_of(options)


def _dynamic_children(options: Any) -> int:
    return 2 * options.top_k if options.policy == "grow-and-prune" else options.top_k


def _dynamic_levels(options: Any) -> int:
    return options.rounds if options.policy == "grow-and-prune" else options.depth


#: methods whose passes are of one draft model and whose next level follows from the last one
DIVISIBLE = {
    "speculative": Divisible(lambda options: 1, lambda options: options.length),
    "static-tree": Divisible(
        lambda options: _ranks(_static_shape(options)),
        lambda options: max(_static_shape(options).depths()),
    ),
    "dynamic-tree": Divisible(_dynamic_children, _dynamic_levels),
}


def why_not_divided(method: str, options: Any, *, num_drafts: int = 1) -> str:
    """Why this method cannot draft on ranks of its own or on several; empty where it can."""
    if method not in DIVISIBLE:
        return f"{method} does not draft on several ranks; {', '.join(DIVISIBLE)} do."
    if num_drafts > 1:
        return "Trees merged from several draft models are drafted on one rank; name one draft."
    if getattr(options, "policy", "") == "auto":
        return (
            "Policy auto weighs times as it measures them, and those differ from rank to rank; "
            "take another policy."
        )
    return ""
