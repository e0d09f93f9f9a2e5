"""What a method can do with several ranks: whether its drafting is divided, and why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from engine.parallel.placement import OWN_OF_BOTH, Divided, Layout, Placement
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


def most_drafting(method: str, options: Any, *, num_drafts: int) -> int | None:
    """How many ranks can have a part in drafting; None: as many as there are.

    Several draft models whose trees are merged are on as many ranks as there are models.
    """
    if num_drafts > 1:
        return num_drafts
    return 1 if why_whole(method, options, num_drafts=num_drafts) else None


def why_whole(method: str, options: Any, *, num_drafts: int) -> str:
    """Why the trees of one draft model are not drafted by several ranks; empty where they are."""
    if not num_drafts:
        return f"{method} has no draft model"
    if getattr(options, "policy", "") == "auto":
        return "policy auto weighs times as it measures them, and those differ from rank to rank"
    if method not in DIVISIBLE:
        return f"{method} drafts on one rank, as all do but {', '.join(DIVISIBLE)}"
    return ""


def why_not(
    method: str, options: Any, *, num_drafts: int, divided: Divided, placement: Placement
) -> str:
    """Why several ranks make no sense here; empty where they do.

    A drafting that is not divided does not matter as long as another rank has something to do.
    """
    target = "--parallel target, which cuts the target over the ranks"
    auto = getattr(options, "policy", "") == "auto"
    if placement != "beside" and not num_drafts:
        return f"{method} has no draft model to place; use --placement beside with {target}."
    if placement != "beside" and auto:
        return (
            "Policy auto weighs passes of the draft model against the target's, which it must have"
            f" beside it; use --placement beside with {target}, or another policy."
        )
    if divided == "draft" and placement == "beside" and num_drafts < 2:
        reason = why_whole(method, options, num_drafts=num_drafts)
        if reason:
            own = ", or --placement own, which gives the draft model a rank"
            return (
                f"Ranks beside the first would have nothing to do: {reason}. Use {target}"
                f"{own if num_drafts and not auto else ''}."
            )
    return OWN_OF_BOTH if placement == "own" and divided == "both" else ""


def note_of(
    method: str, options: Any, *, num_drafts: int, divided: Divided, layout: Layout, num_ranks: int
) -> str:
    """What people should know of how ranks were used; empty where all was divided as asked."""
    said = []
    if num_drafts > 1 and len(layout.draft) > 1:
        said.append("Draft models were on a rank each, whole.")
    elif num_drafts < 2 and divided != "target":
        reason = why_whole(method, options, num_drafts=num_drafts)
        said += [f"Drafting was not divided: {reason}."] if reason else []
    idle = sorted(set(range(num_ranks)) - {*layout.target, *layout.draft})
    if idle:
        which = f"Ranks {', '.join(map(str, idle))}" if len(idle) > 1 else f"Rank {idle[0]}"
        said.append(f"{which} had nothing to do.")
    return " ".join(said)
