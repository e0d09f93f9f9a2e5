"""Whether a node or a draft pass is worth its time: expected tokens less time at its price.

Maximising tokens by time over many steps is maximising tokens - rate * time in each, where `rate`
is the tokens per millisecond of decoding as a whole (Dinkelbach's method for fractional programmes;
here the rate is followed from step to step). The rate is never below that of plain decoding, so a
tree that is worth less than none is not drafted.
"""

from __future__ import annotations

from collections.abc import Sequence


class Worth:
    """Of trees at one context. All times are milliseconds.

    `target_ms` and `draft_ms` are pass times by nodes, index 0 unused; `pass_ms` and `rest_ms` what
    comes on top per draft pass and per step, plain and drafted; `draft_scale` how many times slower
    drafting is by now. The first draft pass of a tree runs `first_rows` tokens that the draft model
    has not seen.
    """

    def __init__(
        self,
        target_ms: Sequence[float],
        draft_ms: Sequence[float],
        *,
        most: int,
        pass_ms: float = 0.0,
        rest_ms: tuple[float, float] = (0.0, 0.0),
        draft_scale: float = 1.0,
        rate: float = 0.0,
        first_rows: int = 1,
    ) -> None:
        self.target_ms = target_ms
        self._draft_ms, self._pass_ms, self._first_rows = draft_ms, pass_ms, first_rows
        self.draft_scale = draft_scale
        self.plain_ms = target_ms[1] + rest_ms[0]
        self.rate = max(rate, 1.0 / self.plain_ms)
        self._most = min(most, len(target_ms) - 2)
        #: what a tree of so many drafted nodes costs beside its draft passes, in tokens
        dearer = rest_ms[1] - rest_ms[0]
        self._cost_N = [0.0] + [
            self.rate * (ms - target_ms[1] + dearer) for ms in target_ms[2 : self._most + 2]
        ]

    def draft_pass_ms(self, rows: int, *, first: bool = False) -> float:
        """The model's time for a draft pass as measured, without what comes on top."""
        rows = self._first_rows if first else rows
        last = len(self._draft_ms) - 1
        return self._draft_ms[rows] if rows <= last else self._draft_ms[last] * rows / last

    def _pass_cost(self, rows: int, *, first: bool) -> float:
        ms = self.draft_pass_ms(rows, first=first) + self._pass_ms
        return self.rate * self.draft_scale * ms

    def best(self, reach: Sequence[float]) -> tuple[float, int]:
        """What the best of these nodes are worth over none, and how many those are.

        `reach` holds chances of acceptance, best first.
        """
        worth, size, total = 0.0, 0, 0.0
        cost_N = self._cost_N
        for at, chance in enumerate(reach[: self._most], 1):
            total += chance
            if total - cost_N[at] > worth:
                worth, size = total - cost_N[at], at
        return worth, size

    def width(
        self, so_far: Sequence[float], hopes: Sequence[float], *, passes: int, levels: int
    ) -> int:
        """How many of the open nodes to expand in the next pass; 0: another pass does not pay.

        Expanding a node is taken to bring one node of its hope (the chance that it is accepted and
        a child of it too). Where one pass does not pay, going on from the best node for up to
        `levels` passes might.
        """
        first = passes == 0
        best, width = self.best(so_far)[0], 0
        for count in range(1, 2 if first else len(hopes) + 1):
            hoped = sorted([*so_far, *hopes[:count]], reverse=True)
            worth = self.best(hoped)[0] - self._pass_cost(count, first=first)
            if worth > best:
                best, width = worth, count
        if width == 0 and hopes and levels > 1:
            return int(self._chain_pays(best, so_far, hopes[0], first=first, levels=levels))
        return width

    def _chain_pays(
        self, best: float, so_far: Sequence[float], hope: float, *, first: bool, levels: int
    ) -> bool:
        """Whether some chain from the best open node beats what there is."""
        above = so_far[0] if so_far else 1.0
        fading = min(hope / above, 1.0) if above else 0.0
        hoped, cost, here = list(so_far), self._pass_cost(1, first=first), hope
        for _ in range(levels):
            hoped = sorted([*hoped, here], reverse=True)
            if self.best(hoped)[0] - cost > best:
                return True
            cost += self._pass_cost(1, first=False)
            here *= fading
        return False

    def could_pay(self, levels: int) -> bool:
        """Whether a chain would pay if all of it were accepted: else nothing ever will."""
        cost = self._pass_cost(1, first=True)
        for depth in range(1, min(levels, self._most) + 1):
            if depth - self._cost_N[depth] > cost:
                return True
            cost += self._pass_cost(1, first=False)
        return False

    def probe_pays(self, silent: int, levels: int, *, share: float) -> bool:
        """Whether after `silent` plain steps a probe costs at most this share of their time."""
        if levels < 1 or self._most < 1 or not self.could_pay(levels):
            return False
        dearer = (self._cost_N[1] + self._pass_cost(1, first=True)) / self.rate
        return dearer <= share * silent * self.plain_ms
