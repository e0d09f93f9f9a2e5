"""How deep the trees of a batch may grow, by what was tried.

Beside many requests a pass is a large part of what it can gain, and a few percent that the costs
are off decide the wrong way. So some depths take turns, a few steps each, and the one that turns
time into most tokens is kept; the others are tried again now and then, since texts change.
"""

from __future__ import annotations

#: steps that a depth is tried for at a time
_STEPS = 8
#: turns of the best one between two of another
_BETWEEN = 10
#: weight of the past in a depth's rate, by turn
_DECAY = 0.95
#: turns that each depth gets at first
_AT_FIRST = 2


class _Tried:
    """One depth's tokens by milliseconds, fading."""

    def __init__(self) -> None:
        self.tokens = self.ms = 0.0
        self.turns = 0

    @property
    def rate(self) -> float:
        return self.tokens / self.ms if self.ms else 0.0


class Depths:
    """Depths 1, 2, 3 and `most` take turns; `now` is the one to keep to, 0: as deep as pays.

    Each step is told by `drafted`, then `took`; a step of which nobody says what it took does not
    count. With a `most` below 2 there is nothing to try.
    """

    def __init__(self, most: int) -> None:
        depths = sorted({1, 2, 3, most} - set(range(most + 1, 4))) if most > 1 else []
        self._tried = {depth: _Tried() for depth in depths}
        self.now = most if depths else 0
        self._tokens = self._turn_tokens = self._turn_ms = 0.0
        self._left = _STEPS
        self._since = 0

    def drafted(self, tokens: float) -> None:
        """The step under way should emit so many tokens."""
        self._tokens = tokens

    def took(self, ms: float) -> None:
        """The step is over."""
        if not self._tried:
            return
        self._turn_tokens += self._tokens
        self._turn_ms += ms
        self._left -= 1
        if self._left == 0:
            self._end_turn()

    def _end_turn(self) -> None:
        tried = self._tried[self.now]
        tried.tokens = _DECAY * tried.tokens + self._turn_tokens
        tried.ms = _DECAY * tried.ms + self._turn_ms
        tried.turns += 1
        self._turn_tokens = self._turn_ms = 0.0
        self._left = _STEPS
        self.now = self._next()

    def _next(self) -> int:
        new = min(self._tried, key=lambda depth: self._tried[depth].turns)
        if self._tried[new].turns < _AT_FIRST:
            return new
        ranked = sorted(self._tried, key=lambda depth: -self._tried[depth].rate)
        self._since += 1
        if self._since > _BETWEEN:
            self._since = 0
            return min(ranked[1:], key=lambda depth: self._tried[depth].turns)
        return ranked[0]
