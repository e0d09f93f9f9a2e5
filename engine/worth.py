"""Whether a node or a draft pass is worth its time: expected tokens less time at its price.

Maximising tokens by time over many steps is maximising tokens - rate * time in each, where `rate`
is the tokens per millisecond of decoding as a whole (Dinkelbach's method for fractional programmes;
here the rate is followed from step to step). The rate is never below that of plain decoding, so a
tree that is worth less than none is not drafted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: open nodes up to which every number of them is weighed; beyond, ever fewer are
_ALL = 8
#: open nodes below which plain Python is quicker
_FEW = 4
#: nodes from which on a table is searched by NumPy
_MANY = 24


class Worth:
    """Of the trees of one step at one context. All times are milliseconds.

    `scored_ms` are times of target passes by drafted nodes, 0 first; `draft_ms` of draft passes by
    nodes, index 0 unused. `active` requests are in the batch, and nodes of all of them compete.
    `pass_ms`, `each_ms` and `rest_ms` are what comes on top per draft pass, per further request in
    it, and per step, plain and drafted; `draft_scale` and `later_scale` how many times slower the
    first draft pass of a step and each later one is by now; `wider_ms` what a target pass takes
    longer for each node by which the widest tree grows;
    `rate` the tokens per millisecond of late. Beyond `most` nodes in all none is drafted.
    """

    def __init__(
        self,
        scored_ms: Sequence[float],
        draft_ms: Sequence[float],
        *,
        most: int,
        active: int = 1,
        pass_ms: float = 0.0,
        each_ms: float = 0.0,
        rest_ms: tuple[float, float] = (0.0, 0.0),
        draft_scale: float = 1.0,
        later_scale: float | None = None,
        wider_ms: float = 0.0,
        rate: float = 0.0,
    ) -> None:
        self.scored_ms = scored_ms
        self._draft_ms, self._pass_ms, self._each_ms = draft_ms, pass_ms, each_ms
        self._active = active
        self._scales = (draft_scale, draft_scale if later_scale is None else later_scale)
        self.plain_ms = scored_ms[0] + rest_ms[0]
        self.rate = max(rate, active / self.plain_ms)
        self._most = min(most, len(scored_ms) - 1)
        #: what the widest tree costs for each of its nodes beyond a first, in tokens
        self.wider_ms, self.wider = wider_ms, self.rate * wider_ms
        #: what so many drafted nodes cost beside the draft passes, in tokens
        dearer = rest_ms[1] - rest_ms[0]
        scored = scored_ms[1 : self._most + 1]
        self._cost_N = [0.0] + [self.rate * (ms - scored_ms[0] + dearer) for ms in scored]
        self._costs = np.asarray(self._cost_N)
        #: what a node costs where it costs least, in tokens: none of a smaller chance is scored
        counts = np.arange(1, len(self._cost_N))
        self.least = float((self._costs[1:] / counts).min()) if len(counts) else 1.0

    def scale(self, *, later: bool) -> float:
        """How many times slower than measured a step's first or later draft pass is."""
        return self._scales[later]

    def draft_pass_ms(self, rows: int, requests: int = 1) -> float:
        """A draft pass over so many rows of so many requests, what comes on top included."""
        model = self._draft_ms[min(rows, len(self._draft_ms) - 1)]
        return model + self._pass_ms + self._each_ms * (requests - 1)

    def _pass_cost(self, rows: int, nodes: int, *, later: bool = False) -> float:
        """In tokens; a later pass makes the widest tree wider."""
        requests = min(nodes, self._active)
        ms = self._scales[later] * self.draft_pass_ms(rows, requests)
        return self.rate * ms + self.wider * later

    def best(self, reach: Sequence[float]) -> tuple[float, int]:
        """What the best of these nodes are worth over none, and how many those are.

        `reach` holds chances of acceptance, best first.
        """
        if len(reach) > _MANY:
            sums = np.cumsum(reach[: self._most]) - self._costs[1 : len(reach) + 1]
            at = int(sums.argmax())
            return (float(sums[at]), at + 1) if sums[at] > 0.0 else (0.0, 0)
        worth, size, total = 0.0, 0, 0.0
        cost_N = self._cost_N
        for at, chance in enumerate(reach[: self._most], 1):
            total += chance
            if total - cost_N[at] > worth:
                worth, size = total - cost_N[at], at
        return worth, size

    def width(
        self,
        so_far: Sequence[float],
        hopes: Sequence[float],
        *,
        levels: int,
        rows: Sequence[int] = (),
    ) -> int:
        """How many of the open nodes to expand in the next pass; 0: another pass does not pay.

        Expanding a node is taken to bring one node of its hope (the chance that it is accepted and
        a child of it too). Where one pass does not pay, going on for up to `levels` passes might.
        `rows` says what each brings to the pass, where that is not one row: a root comes with all
        that the draft model has not seen.
        """
        best, width = self.best(so_far)[0], 0
        tried = _counts(len(hopes))
        found = self._hoped(so_far, hopes, tried)
        for count, hoped in zip(tried, found, strict=True):
            worth = hoped - self._pass_cost(sum(rows[:count]) or count, count, later=bool(so_far))
            if worth > best:
                best, width = worth, count
        if width == 0 and levels > 1:
            for count in sorted({*tried[:1], *tried[-1:]}):
                first = sum(rows[:count]) or count
                if self._chains_pay(best, so_far, hopes[:count], rows=first, levels=levels):
                    return count
        return width

    def _hoped(
        self, so_far: Sequence[float], hopes: Sequence[float], counts: Sequence[int]
    ) -> list[float]:
        """What the best nodes are worth if so many of the open ones bring what is hoped of them."""
        if len(hopes) < _FEW:
            return [
                self.best(sorted([*so_far, *hopes[:count]], reverse=True))[0] for count in counts
            ]
        known, open_K = len(so_far), np.asarray(hopes)
        each = np.zeros((len(counts), known + len(hopes)))
        each[:, :known] = so_far
        each[:, known:] = np.where(np.arange(len(hopes)) < np.asarray(counts)[:, None], open_K, 0.0)
        each.sort(axis=1)
        sums = np.cumsum(each[:, ::-1][:, : self._most], axis=1)
        sums -= self._costs[1 : sums.shape[1] + 1]
        return np.maximum(sums.max(axis=1), 0.0).tolist()

    def _chains_pay(
        self,
        best: float,
        so_far: Sequence[float],
        hopes: Sequence[float],
        *,
        rows: int,
        levels: int,
    ) -> bool:
        """Whether chains on from these open nodes beat what there is."""
        above = so_far[0] if so_far else 1.0
        fading = min(hopes[0] / above, 1.0) if above else 0.0
        hoped, here = list(so_far), list(hopes)
        cost = self._pass_cost(rows, len(here), later=bool(so_far))
        for _ in range(levels):
            hoped = sorted([*hoped, *here], reverse=True)
            if self.best(hoped)[0] - cost > best:
                return True
            cost += self._pass_cost(len(here), len(here), later=True)
            here = [hope * fading for hope in here]
        return False

    def could_pay(self, levels: int) -> bool:
        """Whether a chain would pay if all of it were accepted: else nothing ever will."""
        cost = 0.0
        for depth in range(1, min(levels, self._most) + 1):
            cost += self._pass_cost(1, 1, later=depth > 1)
            if depth - self._cost_N[depth] > cost:
                return True
        return False

    def probe_pays(
        self, silent: int, levels: int, *, share: float, rows: int = 1, nodes: int = 1
    ) -> bool:
        """Whether after `silent` plain steps a probe costs at most this share of their time.

        It scores so many nodes, and its draft pass takes along so many rows that the draft model
        has not seen.
        """
        if levels < 1 or self._most < 1 or not self.could_pay(levels):
            return False
        nodes = min(nodes, self._most)
        dearer = (self._cost_N[nodes] + self._pass_cost(rows, nodes)) / self.rate
        return dearer <= share * silent * self.plain_ms


def _counts(most: int) -> list[int]:
    """1 to `most`, with growing gaps where that is many."""
    found, count = [], 0
    while count < most:
        count = min(most, count + max(1, count // _ALL))
        found.append(count)
    return found
