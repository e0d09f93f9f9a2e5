"""How far a text repeats itself: a text that has collapsed into a loop flatters every drafter."""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 8
"""Tokens of an n-gram; at this length chance hardly repeats one."""


def repetition(token_ids: Sequence[int]) -> float:
    """Return the share of the 8-grams of `token_ids` that occurred in it before; 0 if too short."""
    count = len(token_ids) - WINDOW + 1
    if count < 1:
        return 0.0
    distinct = {tuple(token_ids[at : at + WINDOW]) for at in range(count)}
    return 1.0 - len(distinct) / count
