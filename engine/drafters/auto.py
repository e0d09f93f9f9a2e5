"""Trees that pay: grown while one more draft pass or node is worth the time it takes.

A node is worth its calibrated chance of acceptance (engine/calibration.py); time has the price at
which decoding turns it into tokens anyway, the rate of the recent steps. So a promising step may
take longer than a hopeless one, which the best rate of each step alone would not allow. Times are
those of this pair on this machine (engine/costs.py, engine/pace.py), from its profile or measured
when the engine is built. Where no tree pays nothing is drafted, but for a probe now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.calibration import Calibration, kind_of
from engine.costs import Known, PairCost, contexts_up_to, measure, sizes_up_to
from engine.drafters.base import DrafterContext, Sequence
from engine.drafters.model_drafter import PENDING_ROWS, ModelDrafter, Policy
from engine.growth import Chooser, Growth
from engine.pace import PASS_MS, REST_MS, Pace
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


class AutoDrafter(ModelDrafter):
    """Grows each tree under the costs of its passes; learns from every verdict and every step."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        assert context.draft is not None
        super().__init__(self._grow, options, context)
        self._bounds = options
        known = context.profile()
        self._costs = known.profile.costs if known.profile else self._measure()
        self.calibration = self._counted(known)
        #: where costs and acceptance come from, for people
        self.setting = known.said if known.profile else f"costs measured in place: {known.said}"
        self.pace = Pace()
        self._alone = context.target.num_slots == 1  # predictions are of a request by itself
        self._tables: dict[int, tuple[list[float], list[float]]] = {}
        self._tokens = self._ms = 0.0  # expected of recent steps, fading
        self._silent = _CREDIT
        self._worth: Worth | None = None
        self._told = _Told()
        self._last: TokenTree | None = None

    def _measure(self) -> PairCost:
        target, draft = self._context.target, self._runner
        most = max(self._bounds.frontier, PENDING_ROWS)
        return measure(
            target,
            draft,
            target_nodes=sizes_up_to(self._bounds.most + 1),
            draft_nodes=sizes_up_to(min(most, draft.max_tree)),
            contexts=contexts_up_to(min(target.capacity, draft.capacity) - 1),
        )

    def _counted(self, known: Known) -> Calibration:
        kind = kind_of(self.children, greedy=self._context.sampling.greedy)
        stored = known.profile.calibrations.get(kind) if known.profile else None
        return stored.limited(_STORED_WEIGHT) if stored else Calibration()

    # -- a request -----------------------------------------------------------------------------

    def admit(self, sequence: Sequence) -> None:
        super().admit(sequence)
        self.pace.interrupted()

    def release(self, slot: int) -> None:
        super().release(slot)
        self.pace.interrupted()

    # -- a step --------------------------------------------------------------------------------

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        self.pace.step_begins()
        worth = self._worth = self._worth_now(sequences)
        self._told = told = _Told()
        trees = super().propose(sequences)
        tokens = 1.0 + told.accepted / len(trees)
        draft_ms = (told.draft_ms + PASS_MS * sum(t.draft_passes for t in trees)) / len(trees)
        nodes = max(tree.num_nodes for tree in trees)
        rest_ms = worth.target_ms[nodes] + REST_MS[nodes > 1]
        self._tokens = _DECAY * self._tokens + tokens
        self._ms = _DECAY * self._ms + draft_ms * worth.draft_scale + rest_ms
        if self._alone:
            self._last = tree = trees[0]
            tree.expected_tokens = tokens
            tree.expected_ms = self.pace.expected_ms(draft_ms, rest_ms)
            self.pace.drafting_ends(draft_ms, rest_ms)
        return trees

    def _worth_now(self, sequences: list[Sequence]) -> Worth:
        """Costs at this context, and what time is worth."""
        at = max(s.position for s in sequences) // _CONTEXT_STEP
        if at not in self._tables:
            context = at * _CONTEXT_STEP + _CONTEXT_STEP // 2
            self._tables[at] = (
                self._costs.target.at(context, self._bounds.most + 1).tolist(),
                self._costs.draft.at(context).tolist(),
            )
        target_ms, draft_ms = self._tables[at]
        return Worth(
            target_ms,
            draft_ms,
            pass_ms=PASS_MS,
            rest_ms=REST_MS,
            draft_scale=self.pace.draft_scale,
            rate=self._tokens / self._ms if self._ms else 0.0,
            most=self._bounds.most,
            # more than that is caught up with once, whenever drafting begins
            first_rows=max(min(len(self._pending[s.slot]), PENDING_ROWS) for s in sequences),
        )

    def _grow(self, growth: Growth, chooser: Chooser, max_depth: int) -> Policy:
        """Expand what promises most while that is worth its time; keep the nodes that are."""
        worth, bounds, counted, told = self._worth, self._bounds, self.calibration, self._told
        assert worth is not None
        reach, hope = [1.0], [counted.continues(None)]  # by node; hope: of an accepted child
        open_nodes, so_far = [0], list[float]()
        levels = min(max_depth, bounds.depth)
        probing = worth.probe_pays(self._silent, levels, share=PROBE_SHARE)
        for level in range(levels):
            open_nodes.sort(key=lambda node: -hope[node])
            hopes = [hope[node] for node in open_nodes[: bounds.frontier]]
            width = worth.width(so_far, hopes, passes=level, levels=levels - level)
            if width == 0 and not (probing and level == 0):
                break
            chosen = sorted(open_nodes[: max(width, 1)])
            del open_nodes[: len(chosen)]
            rows = yield chosen
            if not rows:
                break
            told.draft_ms += worth.draft_pass_ms(len(chosen), first=level == 0)
            for node, row in zip(chosen, rows, strict=True):
                picked = chooser.choose(growth, node, row, bounds.top_k)
                for child in growth.add_children(node, *picked):
                    logprob = growth.logprob[child]
                    own = counted.chance(growth.rank[child], logprob)
                    reach.append(reach[node] * own)
                    hope.append(reach[child] * counted.continues(logprob))
                    if growth.depth[child] < max_depth:
                        open_nodes.append(child)
            so_far = sorted(reach[1:], reverse=True)
        count = worth.best(so_far)[1]
        if probing and so_far:
            count = max(count, 1)
        told.accepted += sum(so_far[:count])
        order = sorted(range(1, len(reach)), key=lambda node: -reach[node])
        return sorted(order[:count])

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        super().observe(sequence, tree, verdict, scores)
        if self._alone and tree is not self._last:
            self.pace.interrupted()  # a step that was made without asking
        if tree.num_drafted:
            self._silent = 0
            self.calibration.learn(tree, verdict)
        else:
            self._silent += 1


class _Told:
    """What the trees of one step are expected to bring, and what their draft passes take."""

    __slots__ = ("accepted", "draft_ms")

    def __init__(self) -> None:
        self.accepted = self.draft_ms = 0.0
