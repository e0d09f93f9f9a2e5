"""What a replay tells the browser, in answer to its questions. Plain JSON, no state kept here.

The first answer carries the facts of all steps and a few trees; after that the browser asks for
the trees it will soon show, and says which facts it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.view.replay import STEPS_PER_ANSWER, Replay
from workbench.view.replay_pair import pair_facts

#: trees that go along at once, before and after the step that is opened
_BEFORE, _AFTER = 4, 16


def payload(sides: Sequence[Replay], question: dict[str, Any], *, start: int) -> dict[str, Any]:
    """One or two requests side by side, as far as `question` wants them.

    `question` comes from the browser and is read with care: `have` lists ids whose facts it holds,
    `want` maps an id to places of steps, `pruned` and `whole` say how trees are drawn. `start` is
    the place of the step that is opened where the browser knows no other.
    """
    have = question.get("have")
    have = set(map(str, have)) if isinstance(have, list) else set()
    want = question.get("want")
    want = want if isinstance(want, dict) else {}
    how = {name: bool(question.get(name)) for name in ("pruned", "whole")}
    told = all(side.id in have for side in sides)
    return {
        "start": start,
        "sides": [
            {
                "id": side.id,
                "label": side.label,
                "facts": None if side.id in have else side.facts,
                "trees": side.trees(_wanted(want.get(side.id), side, start), **how),
                **how,
            }
            for side in sides
        ],
        "pair": pair_facts(*sides) if len(sides) == 2 and not told else None,
    }


def _wanted(places: Any, side: Replay, start: int) -> list[int]:
    if not isinstance(places, list):
        first = min(max(0, start), side.num_steps - 1)
        after = range(first, min(first + _AFTER, side.num_steps))
        return [*after, *range(max(0, first - _BEFORE), first)]
    return [int(at) for at in places[:STEPS_PER_ANSWER] if isinstance(at, int | float)]


def start_of(value: str | None, side: Replay) -> int:
    """The place of the step that an address names, counted from 1 there as people see it."""
    try:
        at = int(value) if value else 1
    except ValueError:
        return 0
    return min(max(at, 1), side.num_steps) - 1
