"""What recent steps say: how fast time becomes tokens, and how one request's drafts fare of late.

Policy auto decides by both before anything is drafted (engine/worth.py, engine/drafters/auto.py).
"""

from __future__ import annotations

#: weight of the past in the rate at which time becomes tokens
_DECAY = 0.98
#: weight of the past in how one request's drafts fare, and how many trees the general rate is worth
_LUCK_DECAY, _LUCK_PRIOR = 0.9, 4.0


class Rate:
    """Tokens by milliseconds of recent steps, fading."""

    __slots__ = ("ms", "tokens")

    def __init__(self) -> None:
        self.tokens = self.ms = 0.0

    def learn(self, tokens: float, ms: float) -> None:
        """A step brought so many tokens and took so long."""
        self.tokens = _DECAY * self.tokens + tokens
        self.ms = _DECAY * self.ms + ms

    @property
    def value(self) -> float:
        """Tokens by millisecond; 0 before anything is known."""
        return self.tokens / self.ms if self.ms else 0.0


class Luck:
    """How often one request's trees had a first node accepted, of late."""

    __slots__ = ("hits", "trees")

    def __init__(self) -> None:
        self.hits = self.trees = 0.0

    def learn(self, hit: float) -> None:
        """A tree had its first token accepted (1), had not (0), or had this chance of it."""
        self.trees = _LUCK_DECAY * self.trees + 1.0
        self.hits = _LUCK_DECAY * self.hits + hit

    def chance(self, prior: float) -> float:
        """Chance that the next tree has one, `prior` being that of all requests."""
        return (self.hits + _LUCK_PRIOR * prior) / (self.trees + _LUCK_PRIOR)
