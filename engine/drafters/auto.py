"""Trees that pay: grown while one more draft pass or node is worth the time it takes.

The nodes of all requests of a batch compete for a step as in an auction (engine/bidding.py): a node
bids its calibrated chance of acceptance, and time has the price at which decoding turns it into
tokens anyway, the rate of the recent steps. So a promising step may take longer than a hopeless
one, which the best rate of each step alone would not allow. Times are those of this pair on this
machine (engine/costs.py, engine/pace.py), from its profile or measured when the engine is built.
Whether a request drafts at all is decided beforehand, from how its drafts fared of late. Where no
tree pays nothing is drafted, but for a probe now and then.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from engine.bidding import Bidder, best_of_each, offers, winning
from engine.calibration import Calibration, kind_of
from engine.costs import Known, PairCost, contexts_up_to, measure, sizes_up_to
from engine.depths import Depths
from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import PENDING_ROWS, ModelDrafter, Policy, deepest
from engine.growth import Chooser, Growth
from engine.pace import EACH_MS, EACH_REST_MS, PASS_MS, REST_MS, Pace
from engine.recent import Luck, Rate
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
#: tokens by which the context may grow before costs are read anew
_CONTEXT_STEP = 16
#: drafted nodes in one pass up to which costs are measured; beyond they follow a line
_MOST_MEASURED = 64
#: rows of a root's draft pass in the long run: the root, and a token that the draft never ran
_USUAL_ROWS = 2
#: tables of costs kept, by context and slots
_MOST_TABLES = 256


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
        #: scored, drafted and wider milliseconds (`Worth`) by context and slots looked at
        self._tables: dict[tuple[int, int], tuple[list[float], list[float], float]] = {}
        self._rates: dict[int, Rate] = {}  # by requests in the batch
        self._depths: dict[int, Depths] = {}  # likewise
        self._last_active = 0
        self._luck: dict[int, Luck] = {}
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

    def admit(self, *sequences: Sequence) -> None:
        super().admit(*sequences)
        self._luck |= {sequence.slot: Luck() for sequence in sequences}
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
        rest_ms = worth.scored_ms[nodes - active] + _rest_ms(active, drafted=nodes > active)
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
        active, slots = len(sequences), self._context.target.num_slots
        # of several requests a pass looks at all slots up to the last one
        span = max(s.slot for s in sequences) + 1 if active > 1 else 1
        if (at, span) not in self._tables:
            context = at * _CONTEXT_STEP + _CONTEXT_STEP // 2
            scored_ms, wider_ms = self._costs.scoring(
                context, slots=slots, span=span, most=slots * self._bounds.most
            )
            draft_ms = self._costs.draft.at(context, slots * PENDING_ROWS)
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[at, span] = scored_ms.tolist(), draft_ms.tolist(), wider_ms
        scored, drafted, wider = self._tables[at, span]
        return Worth(
            scored,
            drafted,
            active=active,
            pass_ms=PASS_MS,
            each_ms=EACH_MS,
            rest_ms=(_rest_ms(active, drafted=False), _rest_ms(active, drafted=True)),
            draft_scale=self.pace.draft_scale(),
            later_scale=self.pace.draft_scale(later=True),
            wider_ms=wider if active > 1 else 0.0,
            rate=self._rates.setdefault(active, Rate()).value,
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
        begun: dict[int, Bidder] = {}
        depth = self._depths[len(sequences)].now or self._bounds.depth
        for level in range(depth):
            start = perf_counter()
            chosen = self._chosen(bidders, so_far, depth - level, first=level == 0)
            if not chosen:
                break
            for bidder, _ in chosen if level == 0 else ():
                self._catch_up(bidder.slot)
                begun[bidder.slot] = bidder
            expected = self._expand_all(chosen, growths)
            self._draft_ms += expected
            self._slowed_ms += expected * self._worth.scale(later=level > 0)
            so_far = sorted((r for b in begun.values() for r in b.reach[1:]), reverse=True)
            bidders = [b for b in begun.values() if not self._leaves(b)]
            self.pace.pass_took((perf_counter() - start) * 1e3, expected, later=level > 0)
        return self._awarded(begun)

    def _bidder(
        self, sequence: Sequence, growths: dict[int, Growth], choosers: dict[int, Chooser]
    ) -> Bidder:
        slot, most = sequence.slot, self._bounds.most
        hope = self._luck[slot].chance(self.calibration.continues(None))
        return Bidder(
            slot,
            growths[slot],
            choosers[slot],
            most=most if sequence.budget is None else min(most, sequence.budget),
            levels=min(deepest(sequence), self._bounds.depth),
            reach=[1.0],
            hope=[hope],
        )

    def _chosen(
        self, bidders: list[Bidder], so_far: list[float], levels: int, *, first: bool
    ) -> list[tuple[Bidder, list[int]]]:
        """Whose nodes to expand in the next pass; empty: it does not pay."""
        open_nodes = offers(bidders, self._bounds.frontier)
        # what a silent request has to catch up with is paid once, and is no reason to stay silent
        rows = [min(len(self._pending[b.slot]), _USUAL_ROWS) for _, b, _ in open_nodes]
        width = self._worth.width(
            so_far, [hope for hope, _, _ in open_nodes], levels=levels, rows=rows if first else ()
        )
        if first:
            self._probing = False
            if width == 0:
                open_nodes = self._probe(bidders, levels)
                width = len(open_nodes)
                self._probing = width > 0
        wanted: dict[int, tuple[Bidder, list[int]]] = {}
        for _, bidder, node in open_nodes[:width]:
            wanted.setdefault(bidder.slot, (bidder, []))[1].append(node)
        for bidder, nodes in wanted.values():
            nodes.sort()
            bidder.open = [node for node in bidder.open if node not in nodes]
        return list(wanted.values())

    def _probe(self, bidders: list[Bidder], levels: int) -> list[tuple[float, Bidder, int]]:
        """The roots of all, where a probe is due: the requests share its draft pass."""
        bidders = [b for b in bidders if b.levels > 0]
        if not bidders:
            return []
        rows = sum(min(len(self._pending[b.slot]), PENDING_ROWS) for b in bidders)
        levels = min(levels, max(b.levels for b in bidders))
        pays = self._worth.probe_pays(
            self._silent, levels, share=PROBE_SHARE, rows=rows, nodes=len(bidders)
        )
        return [(b.hope[0], b, 0) for b in bidders] if pays else []

    def _expand_all(
        self, chosen: list[tuple[Bidder, list[int]]], growths: dict[int, Growth]
    ) -> float:
        """One draft pass over the chosen nodes of all; the milliseconds that it should take."""
        frontier = {bidder.slot: nodes for bidder, nodes in chosen}
        found = self._expand(growths, frontier)
        rows, top_k, least = 0, self._bounds.top_k, self._worth.least
        for bidder, nodes in chosen:
            slot = bidder.slot
            rows += len(nodes) if nodes[0] else self._num_pending[slot]
            bidder.add(nodes, found[slot], self.calibration, top_k=top_k, least=least)
        return self._worth.draft_pass_ms(rows, len(chosen))

    def _leaves(self, bidder: Bidder) -> bool:
        """Whether the adaptive exit ends this tree."""
        return bool(bidder.open) and self._unsure(bidder.slot, bidder.growth, bidder.open)

    def _awarded(self, begun: dict[int, Bidder]) -> dict[int, list[int] | None]:
        """The nodes that stay of each tree: the best bids of all, as many as are worth scoring."""
        bids = sorted(
            (bid for b in begun.values() for bid in b.bids()), key=lambda bid: -bid.chance
        )
        # a probe is made to learn from it: all are heard
        won = best_of_each(bids) if self._probing else winning(bids, self._worth)
        kept: dict[int, list[int] | None] = {}
        for slot, bidder in begun.items():
            own = [bid for bid in won if bid.slot == slot]
            if not own:  # nobody tests what was drafted; it was not promising, which counts too
                self._luck[slot].learn(bidder.promise())
            kept[slot] = sorted(bid.node for bid in own)
            bidder.growth.expected = 1.0 + sum(bid.chance for bid in own)
        return kept

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
