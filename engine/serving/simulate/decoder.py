"""A decoder that only pretends: its steps move a virtual clock by what real ones would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.clock import shared_out
from engine.decode import StepOutput
from engine.errors import UserError
from engine.records import (
    Fate,
    FinishReason,
    Origin,
    RequestRecord,
    StageTimes,
    StepRecord,
    Verdict,
)
from engine.requests import Request
from engine.serving.simulate.model import StepModel, StepTaken
from engine.tree import TokenTree, tree_from_lists


class VirtualClock:
    """Nanoseconds that pass when a simulated decoder works, or when told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def advance_ms(self, ms: float) -> None:
        self.ns += round(ms * 1e6)

    def wait_until(self, ns: int) -> None:
        """Idle until then, unless it is later already."""
        self.ns = max(self.ns, ns)


@dataclass(slots=True)
class _Active:
    request: Request
    limit: int  # tokens it may emit
    source: int
    start: int
    kept: int = 0
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    prefill_ns: int = 0
    began_ns: int = 0


class SimulatedDecoder:
    """Implements `engine.serving.trace.Decoder`. Tokens are all 0: only their number is simulated.

    What a request has accepted depends on `seed` and its index, never on the batch.
    """

    def __init__(
        self, model: StepModel, *, clock: VirtualClock, num_slots: int, capacity: int, seed: int
    ) -> None:
        self._model, self._clock, self._capacity, self._seed = model, clock, capacity, seed
        self._slots: list[_Active | None] = [None] * num_slots

    @property
    def num_free(self) -> int:
        return self._slots.count(None)

    @property
    def busy(self) -> bool:
        return any(self._slots)

    def check(self, request: Request) -> int:
        prompt = len(request.prompt_ids)
        if prompt >= self._capacity:
            raise UserError(
                f"The prompt has {prompt} tokens; the simulated model takes {self._capacity} with"
                " the answer included. Shorten it."
            )
        return min(request.max_new_tokens, self._capacity - prompt)

    def add(self, *requests: Request) -> None:
        """Prefill: the clock moves by what that takes."""
        sizes, begin = [len(request.prompt_ids) for request in requests], self._clock.ns
        actives = []
        for request in requests:
            source, start = self._model.steps.walk(self._seed, [request.index])
            actives.append(_Active(request, self.check(request), int(source[0]), int(start[0])))
        self._clock.advance_ms(self._model.costs.prefill_ms(sum(sizes)))
        for active, span in zip(actives, shared_out(begin, self._clock.ns, sizes), strict=True):
            active.prefill_ns, active.began_ns = span[1] - span[0], self._clock.ns
            self._slots[self._slots.index(None)] = active

    def step(self, budgets: Mapping[int, int] | None = None) -> StepOutput:
        batch = [active for active in self._slots if active is not None]
        taken = self._model.step(
            np.array([a.source for a in batch]),
            np.array([a.start + a.kept for a in batch]),
            np.array([len(a.request.prompt_ids) + a.kept for a in batch], float),
            budgets_B=None
            if budgets is None
            else np.array([budgets.get(a.request.index, 1 << 30) for a in batch]),
            span=max(slot for slot, active in enumerate(self._slots) if active is not None) + 1,
        )
        self._clock.advance_ms(taken.ms)
        times = StageTimes(
            draft=round(taken.draft_ms * 1e6),
            score=round(taken.score_ms * 1e6),
            unaccounted=round(taken.rest_ms * 1e6),
        )
        steps = [self._record(active, taken, at, times) for at, active in enumerate(batch)]
        done = [active for active in batch if active.kept == active.limit]
        return StepOutput(steps, [self._finish(active, FinishReason.LENGTH) for active in done])

    def drop(self, index: int, reason: str = FinishReason.CANCELLED) -> RequestRecord:
        for active in self._slots:
            if active is not None and active.request.index == index:
                return self._finish(active, FinishReason(reason))
        raise KeyError(index)

    def _record(self, active: _Active, taken: StepTaken, at: int, times: StageTimes) -> StepRecord:
        nodes, accepted = int(taken.choice.nodes_B[at]), int(taken.choice.accepted_B[at])
        tree = _tree(nodes, int(taken.choice.depth_B[at]))
        tree.draft_passes = len(taken.choice.draft_rows)
        tree.expected_tokens = 1.0 + float(taken.choice.bid_B[at])
        fates = np.full(nodes + 1, Fate.NOT_REACHED, np.uint8)
        fates[0], fates[1 : accepted + 1] = Fate.ROOT, Fate.ACCEPTED
        kept = min(accepted + 1, active.limit - active.kept)
        origin = Origin.BONUS if accepted == tree.depth_M.max() else Origin.CORRECTION
        record = StepRecord(
            request=active.request.index,
            step=active.num_steps,
            position=len(active.request.prompt_ids) + active.kept,
            tree=tree,
            verdict=Verdict(
                list(range(accepted + 1)), 0, origin, fates,
                np.full(nodes + 1, np.nan, np.float32),
            ),
            target_logprob_M=np.full(nodes + 1, np.nan, np.float32),
            emitted=[0] * (accepted + 1),
            num_kept=kept,
            emitted_logprob=np.full(accepted + 1, np.nan, np.float32),
            top2_gap=np.full(accepted + 1, np.nan, np.float32),
            times=times,
            batch=len(taken.emitted_B),
            time_ns=self._clock.ns,
            budget=nodes,
        )  # fmt: skip
        active.kept += kept
        active.num_steps += 1
        active.num_drafted += nodes
        active.num_accepted += accepted
        return record

    def _finish(self, active: _Active, reason: FinishReason) -> RequestRecord:
        self._slots[self._slots.index(active)] = None
        request = active.request
        return RequestRecord(
            request=request.index,
            question_id=request.question_id,
            category=request.category,
            turn=request.turn,
            repeat=request.repeat,
            prompt=request.prompt,
            prompt_ids=list(request.prompt_ids),
            token_ids=[0] * active.kept,
            text="",
            finish_reason=reason,
            num_steps=active.num_steps,
            num_emitted=active.num_accepted + active.num_steps,
            num_drafted=active.num_drafted,
            num_accepted=active.num_accepted,
            prefill_ns=active.prefill_ns,
            decode_ns=self._clock.ns - active.began_ns,
            repetition=0.0,
        )


def _tree(nodes: int, depth: int) -> TokenTree:
    """As many nodes as deep: a chain, and the others beside its first one. Its tokens mean nothing.

    The accepted nodes of a record are the first ones of the chain.
    """
    parents = list(range(-1, depth)) + [0] * (nodes - depth)
    return tree_from_lists([0, *range(1, nodes + 1)], parents, [np.nan] * (nodes + 1))
