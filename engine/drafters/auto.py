"""Trees that pay: grown while one more draft pass or node is worth the time it takes.

The nodes of all requests of a batch compete for a step as in an auction: a node bids its calibrated
chance of acceptance (engine/calibration.py), and time has the price at which decoding turns it into
tokens anyway, the rate of the recent steps. So a promising step may take longer than a hopeless
one, which the best rate of each step alone would not allow. Times are those of this pair on this
machine (engine/costs.py, engine/pace.py), from its profile or measured when the engine is built.
Whether a request drafts at all is decided beforehand, from how its drafts fared of late. Where no
tree pays nothing is drafted, but for a probe now and then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from engine.calibration import Calibration, kind_of
from engine.costs import Known, PairCost, contexts_up_to, measure, sizes_up_to
from engine.depths import Depths
from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import PENDING_ROWS, ModelDrafter, Policy, deepest
from engine.growth import Chooser, Growth, Row
from engine.pace import EACH_MS, EACH_REST_MS, PASS_MS, REST_MS, Pace
from engine.worth import Worth

if TYPE_CHECKING:
    from engine.drafters.dynamic_tree import Options
    from engine.records import Verdict
    from engine.target import Scores
    from engine.tree import TokenTree

#: share of the time that may go into probing where nothing is drafted
PROBE_SHARE = 0.01
#: steps by which the first probe comes early
_CREDIT = 24
#: children that a cell of stored counts weighs at most
_STORED_WEIGHT = 60.0
#: weight of the past in the rate at which time becomes tokens
_DECAY = 0.98
#: tokens by which the context may grow before costs are read anew
_CONTEXT_STEP = 16
#: drafted nodes in one pass up to which costs are measured; beyond they follow a line
_MOST_MEASURED = 64
#: chance of acceptance by the draft's probability, at most, of children that are not the first
_UNSURE = 1.5
#: rows of a root's draft pass in the long run: the root, and a token that the draft never ran
_USUAL_ROWS = 2
#: weight of the past in how one request's drafts fare, and how many trees the general rate is worth
_LUCK_DECAY, _LUCK_PRIOR = 0.9, 4.0


@dataclass(slots=True)
class _Bidder:
    """One request's tree while the nodes of all compete."""

    sequence: Sequence
    growth: Growth
    chooser: Chooser
    most: int  # drafted nodes that may stay
    levels: int
    reach: list[float]  # by node: chance that it is accepted
    hope: list[float]  # by node: chance that a child of it is accepted too
    open: list[int] = field(default_factory=lambda: [0])

    def add(
        self,
        nodes: list[int],
        rows: list[Row],
        counted: Calibration,
        *,
        top_k: int,
        least: float,
    ) -> None:
        """Children of these nodes, open themselves where they are not too deep.

        Where the draft is so sure of one child that the others together would hardly have a chance
        of `least`, that one is all.
        """
        growth = self.growth
        for node, row in zip(nodes, rows, strict=True):
            picked = self.chooser.choose(growth, node, row, 1)
            left = self.reach[node] * (1.0 - math.exp(min(picked[2][0], 0.0)))
            if top_k > 1 and _UNSURE * left > least:
                picked = self.chooser.choose(growth, node, row, top_k)
            for child in growth.add_children(node, *picked):
                logprob = growth.logprob[child]
                own = counted.chance(growth.rank[child], logprob)
                self.reach.append(self.reach[node] * own)
                self.hope.append(self.reach[child] * counted.continues(logprob))
                if growth.depth[child] < self.levels:
                    self.open.append(child)

    def promise(self) -> float:
        """Chance that a child of the root is accepted."""
        first = (r for r, d in zip(self.reach, self.growth.depth, strict=True) if d == 1)
        return min(sum(first), 1.0)

    def bids(self) -> list[tuple[float, int]]:
        """(chance, node) of its best nodes, as many as may stay, the best first."""
        order = sorted(range(1, len(self.reach)), key=lambda node: -self.reach[node])
        return [(self.reach[node], node) for node in order[: self.most]]


class _Rate:
    """Tokens by milliseconds of recent steps, fading."""

    __slots__ = ("ms", "tokens")

    def __init__(self) -> None:
        self.tokens = self.ms = 0.0

    def learn(self, tokens: float, ms: float) -> None:
        self.tokens = _DECAY * self.tokens + tokens
        self.ms = _DECAY * self.ms + ms

    @property
    def value(self) -> float:
        return self.tokens / self.ms if self.ms else 0.0


class _Luck:
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


class AutoDrafter(ModelDrafter):
    """Grows all trees of a step under the costs of its passes; learns from every verdict."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        assert context.draft is not None
        super().__init__(_never, options, context)
        self._bounds = options
        known = context.profile()
        self._costs = known.profile.costs if known.profile else self._measure()
        self.calibration = self._counted(known)
        #: where costs and acceptance come from, for people
        self.setting = known.said if known.profile else f"costs measured in place: {known.said}"
        self.pace = Pace()
        self._alone = context.target.num_slots == 1  # predictions are of a request by itself
        self._tables: dict[int, tuple[list[float], list[float], float]] = {}
        self._rates: dict[int, _Rate] = {}  # by requests in the batch
        self._depths: dict[int, Depths] = {}  # likewise
        self._last_active = 0
        self._luck: dict[int, _Luck] = {}
        self._silent = 0  # steps since a request last drafted
        self._draft_ms = 0.0  # of the passes of this step, as measured beforehand
        self._slowed_ms = 0.0  # the same at the pace of the machine by now
        self._probing = False
        self._worth: Worth
        self._last: TokenTree | None = None

    def _measure(self) -> PairCost:
        target, draft = self._context.target, self._runner
        slots = target.num_slots
        most = max(self._bounds.frontier, PENDING_ROWS)
        most = min(slots * min(most, draft.max_tree), _MOST_MEASURED)
        return measure(
            target,
            draft,
            target_nodes=sizes_up_to(slots + min(slots * self._bounds.most, _MOST_MEASURED)),
            draft_nodes=sizes_up_to(most),
            contexts=contexts_up_to(min(target.capacity, draft.capacity) - 1),
        )

    def _counted(self, known: Known) -> Calibration:
        kind = kind_of(self.children, greedy=self._context.sampling.greedy)
        stored = known.profile.calibrations.get(kind) if known.profile else None
        return stored.limited(_STORED_WEIGHT) if stored else Calibration()

    # -- a request -----------------------------------------------------------------------------

    def admit(self, sequence: Sequence) -> None:
        super().admit(sequence)
        self._luck[sequence.slot] = _Luck()
        self._silent = max(self._silent, _CREDIT)
        self.pace.interrupted()

    def release(self, slot: int) -> None:
        super().release(slot)
        self._luck.pop(slot, None)
        self.pace.interrupted()

    # -- a step --------------------------------------------------------------------------------

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        self.pace.step_begins()
        self._tell_depths(len(sequences))
        self._draft_ms = self._slowed_ms = 0.0
        worth = self._worth = self._worth_now(sequences)
        trees = super().propose(sequences)
        active = len(trees)
        for tree in trees:
            if tree.expected_tokens != tree.expected_tokens:  # it drafted nothing
                tree.expected_tokens = 1.0
        tokens = sum(tree.expected_tokens for tree in trees)
        nodes = sum(tree.num_nodes for tree in trees)
        self._silent = 0 if nodes > active else self._silent + 1
        rest_ms = worth.target_ms[nodes] + _rest_ms(active, drafted=nodes > active)
        rest_ms += worth.wider_ms * max(max(tree.num_nodes for tree in trees) - 2, 0)
        draft_ms = self._draft_ms
        self._rates[active].learn(tokens, self._slowed_ms + rest_ms)
        self._depths[active].drafted(tokens)
        if self._alone:
            self._last = tree = trees[0]
            tree.expected_ms = self.pace.expected_ms(draft_ms, rest_ms)
        self.pace.drafting_ends(draft_ms, rest_ms)
        return trees

    def _tell_depths(self, active: int) -> None:
        """What the last step took goes to the depths tried with as many requests."""
        if self._last_active and self.pace.took_ms is not None:
            self._depths[self._last_active].took(self.pace.took_ms)
        self._last_active = active
        if active not in self._depths:
            self._depths[active] = Depths(self._bounds.depth if active > 1 else 0)

    def _worth_now(self, sequences: list[Sequence]) -> Worth:
        """Costs at this context, and what time is worth."""
        at = max(s.position for s in sequences) // _CONTEXT_STEP
        if at not in self._tables:
            context = at * _CONTEXT_STEP + _CONTEXT_STEP // 2
            slots = self._context.target.num_slots
            most = slots * (self._bounds.most + 1)
            self._tables[at] = (
                self._costs.target.at(context, most).tolist(),
                self._costs.draft.at(context, slots * PENDING_ROWS).tolist(),
                float(self._costs.wider.at(context, 1)[1]) if self._costs.wider else 0.0,
            )
        target_ms, draft_ms, wider_ms = self._tables[at]
        active = len(sequences)
        return Worth(
            target_ms,
            draft_ms,
            active=active,
            pass_ms=PASS_MS,
            each_ms=EACH_MS,
            rest_ms=(_rest_ms(active, drafted=False), _rest_ms(active, drafted=True)),
            draft_scale=self.pace.draft_scale(),
            later_scale=self.pace.draft_scale(later=True),
            wider_ms=wider_ms if active > 1 else 0.0,
            rate=self._rates.setdefault(active, _Rate()).value,
            most=active * self._bounds.most,
        )

    def _grow_all(
        self,
        sequences: list[Sequence],
        growths: dict[int, Growth],
        choosers: dict[int, Chooser],
    ) -> dict[int, list[int] | None]:
        """Expand what promises most, of all requests, while that is worth its time."""
        bidders = [self._bidder(s, growths, choosers) for s in sequences if s.slot in choosers]
        so_far: list[float] = []
        begun: dict[int, _Bidder] = {}
        depth = self._depths[len(sequences)].now or self._bounds.depth
        for level in range(depth):
            start = perf_counter()
            chosen = self._chosen(bidders, so_far, depth - level, first=level == 0)
            if not chosen:
                break
            for bidder, _ in chosen if level == 0 else ():
                self._catch_up(bidder.sequence.slot)
                begun[bidder.sequence.slot] = bidder
            expected = self._expand_all(chosen, growths)
            self._draft_ms += expected
            self._slowed_ms += expected * self._worth.scale(later=level > 0)
            so_far = sorted((r for b in begun.values() for r in b.reach[1:]), reverse=True)
            bidders = [b for b in begun.values() if not self._leaves(b)]
            self.pace.pass_took((perf_counter() - start) * 1e3, expected, later=level > 0)
        return self._awarded(begun)

    def _bidder(
        self, sequence: Sequence, growths: dict[int, Growth], choosers: dict[int, Chooser]
    ) -> _Bidder:
        slot, most = sequence.slot, self._bounds.most
        hope = self._luck[slot].chance(self.calibration.continues(None))
        return _Bidder(
            sequence,
            growths[slot],
            choosers[slot],
            most=most if sequence.budget is None else min(most, sequence.budget),
            levels=min(deepest(sequence), self._bounds.depth),
            reach=[1.0],
            hope=[hope],
        )

    def _chosen(
        self, bidders: list[_Bidder], so_far: list[float], levels: int, *, first: bool
    ) -> list[tuple[_Bidder, list[int]]]:
        """Whose nodes to expand in the next pass; empty: it does not pay."""
        offers = []
        for bidder in bidders:
            bidder.open.sort(key=lambda node: -bidder.hope[node])
            for node in bidder.open[: self._bounds.frontier]:
                offers.append((bidder.hope[node], bidder, node))
        offers.sort(key=lambda offer: -offer[0])
        # what a silent request has to catch up with is paid once, and is no reason to stay silent
        rows = [min(len(self._pending[b.sequence.slot]), _USUAL_ROWS) for _, b, _ in offers]
        width = self._worth.width(
            so_far, [hope for hope, _, _ in offers], levels=levels, rows=rows if first else ()
        )
        if first:
            self._probing = False
            if width == 0:
                offers = self._probe(bidders, levels)
                width = len(offers)
                self._probing = width > 0
        wanted: dict[int, tuple[_Bidder, list[int]]] = {}
        for _, bidder, node in offers[:width]:
            wanted.setdefault(bidder.sequence.slot, (bidder, []))[1].append(node)
        for bidder, nodes in wanted.values():
            nodes.sort()
            bidder.open = [node for node in bidder.open if node not in nodes]
        return list(wanted.values())

    def _probe(self, bidders: list[_Bidder], levels: int) -> list[tuple[float, _Bidder, int]]:
        """The roots of all, where a probe is due: the requests share its draft pass."""
        bidders = [b for b in bidders if b.levels > 0]
        if not bidders:
            return []
        rows = sum(min(len(self._pending[b.sequence.slot]), PENDING_ROWS) for b in bidders)
        levels = min(levels, max(b.levels for b in bidders))
        pays = self._worth.probe_pays(
            self._silent, levels, share=PROBE_SHARE, rows=rows, nodes=len(bidders)
        )
        return [(b.hope[0], b, 0) for b in bidders] if pays else []

    def _expand_all(
        self, chosen: list[tuple[_Bidder, list[int]]], growths: dict[int, Growth]
    ) -> float:
        """One draft pass over the chosen nodes of all; the milliseconds that it should take."""
        frontier = {bidder.sequence.slot: nodes for bidder, nodes in chosen}
        found = self._expand(growths, frontier)
        rows, top_k, least = 0, self._bounds.top_k, self._worth.least
        for bidder, nodes in chosen:
            slot = bidder.sequence.slot
            rows += len(nodes) if nodes[0] else self._num_pending[slot]
            bidder.add(nodes, found[slot], self.calibration, top_k=top_k, least=least)
        return self._worth.draft_pass_ms(rows, len(chosen))

    def _leaves(self, bidder: _Bidder) -> bool:
        """Whether the adaptive exit ends this tree."""
        return bool(bidder.open) and self._unsure(bidder.sequence.slot, bidder.growth, bidder.open)

    def _awarded(self, begun: dict[int, _Bidder]) -> dict[int, list[int] | None]:
        """The nodes that stay of each tree: the best bids of all, as many as are worth scoring."""
        bids = [(chance, slot, node) for slot, b in begun.items() for chance, node in b.bids()]
        bids.sort(key=lambda bid: -bid[0])
        bids = self._winning(bids)
        kept: dict[int, list[int] | None] = {}
        for slot, bidder in begun.items():
            won = [(chance, node) for chance, at, node in bids if at == slot]
            if not won:  # nobody tests what was drafted; it was not promising, which counts too
                self._luck[slot].learn(bidder.promise())
            kept[slot] = sorted(node for _, node in won)
            bidder.growth.expected = 1.0 + sum(chance for chance, _ in won)
        return kept

    def _winning(self, bids: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
        """The bids (chance, slot, node) that are worth scoring, of the best first.

        The widest tree is paid for by all: every width is tried, from what each would give.
        """
        if self._probing:  # made to learn from it: the best of each
            first: dict[int, tuple[float, int, int]] = {}
            for bid in bids:
                first.setdefault(bid[1], bid)
            return list(first.values())
        count: dict[int, int] = {}
        place = []  # of each bid among those of its request
        for _, slot, _ in bids:
            count[slot] = count.get(slot, 0) + 1
            place.append(count[slot])
        most = max(place, default=0)
        best, winning = 0.0, []
        widths = range(1, most + 1) if self._worth.wider and len(count) > 1 else [most]
        for width in widths:
            within = [bid for bid, at in zip(bids, place, strict=True) if at <= width]
            worth, size = self._worth.best([chance for chance, _, _ in within])
            if worth - self._worth.wider * (width - 1) > best:
                best, winning = worth - self._worth.wider * (width - 1), within[:size]
        return winning

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        super().observe(sequence, tree, verdict, scores)
        self.pace.verdict_comes()
        slot = sequence.slot
        if self._alone and tree is not self._last:
            self.pace.interrupted()  # a step that was made without asking
        if tree.num_drafted:
            self._luck[slot].learn(verdict.num_accepted > 0)
            self.calibration.learn(tree, verdict)


def _rest_ms(active: int, *, drafted: bool) -> float:
    """What comes on top of a step's target pass over so many requests."""
    return REST_MS[drafted] + EACH_REST_MS[drafted] * (active - 1)


def _never(growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
    raise AssertionError("its trees grow together")
