"""Decoding, a step at a time. Read `Engine.step` first: it is the whole idea on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.clock import clock_for, shared_out
from engine.drafters.base import Drafter, Sequence
from engine.errors import UserError
from engine.growth import Noise
from engine.records import FinishReason, RequestRecord, StageTimes, StepRecord, Verdict
from engine.repetition import repetition
from engine.requests import Request
from engine.rules import Verifier
from engine.sampling import Sampling
from engine.target import Scores, Target
from engine.text import decode
from engine.tree import TokenTree, root_only

if TYPE_CHECKING:
    from engine.parallel.build import Parallel


@dataclass(slots=True)
class Active:
    """A request under way in a slot."""

    request: Request
    sequence: Sequence
    prefill_ns: int  # its share, by tokens, where prompts were read together
    started_ns: int
    emitted: list[int] = field(default_factory=list)  # kept tokens so far
    num_steps: int = 0
    num_emitted: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    ended_ns: int = 0


class StepOutput(NamedTuple):
    """What one engine step brought: a record per request in the batch, and those that ended."""

    steps: list[StepRecord]
    finished: list[RequestRecord]


class Engine:
    """Decodes requests together: one target pass per step over the trees of all of them."""

    def __init__(
        self,
        *,
        target: Target,
        drafter: Drafter,
        verifier: Verifier,
        sampling: Sampling,
        num_slots: int,
        budget: int,
        ignore_eos: bool = False,
        mode: str = "eager",
        parallel: Parallel | None = None,
    ) -> None:
        self.mode = mode
        #: the ranks it works on, where they are several
        self.parallel = parallel
        #: what the drafter chose by itself, for people; empty where it chose nothing
        self.setting: str = getattr(drafter, "setting", "")
        self._target = target
        self._drafter = drafter
        self.verifier = verifier
        self._sampling = sampling
        self._budget = budget
        self._loaded = target.runner.loaded
        self._eos = frozenset() if ignore_eos else self._loaded.eos_ids
        self._slots: list[Active | None] = [None] * num_slots
        self._num_steps = 0
        self._origin_ns = perf_counter_ns()
        self._synchronize = _synchronizer(self._loaded.device)
        self._clock = clock_for(self._loaded.device)

    # -- requests ------------------------------------------------------------------------------

    @property
    def num_free(self) -> int:
        return self._slots.count(None)

    @property
    def busy(self) -> bool:
        return any(self._slots)

    def add(self, *requests: Request) -> None:
        """Prefill requests into free slots, the lowest ones first, together.

        Raises UserError for a prompt that cannot run. Where anything fails none of them is added.
        """
        free = [slot for slot, active in enumerate(self._slots) if active is None]
        sequences = [
            self._sequence(slot, request) for slot, request in zip(free, requests, strict=False)
        ]
        assert len(sequences) == len(requests), "more requests than free slots"
        start = perf_counter_ns()
        try:
            self._target.admit({s.slot: s.tokens for s in sequences})
            self._drafter.admit(*sequences)
            self._synchronize()
        except BaseException:  # out of memory, say: the slots are as free as they were
            for sequence in sequences:
                self._target.release(sequence.slot)
                with suppress(KeyError):  # a drafter that did not get so far
                    self._drafter.release(sequence.slot)
            raise
        now = perf_counter_ns()
        spans = shared_out(start, now, [len(request.prompt_ids) for request in requests])
        for request, sequence, (begin, end) in zip(requests, sequences, spans, strict=True):
            active = Active(request, sequence, prefill_ns=end - begin, started_ns=now)
            self._slots[sequence.slot] = active

    def _sequence(self, slot: int, request: Request) -> Sequence:
        noise = Noise(self._sampling, request=request.index, vocab_size=self._loaded.vocab_size)
        return Sequence(slot, list(request.prompt_ids), self.check(request), noise)

    def check(self, request: Request) -> int:
        """The number of tokens the request may emit. Raises UserError where it could never run."""
        prompt, context = len(request.prompt_ids), self._target.runner.capacity
        if prompt == 0:
            raise UserError("The prompt is empty; give at least one token of text.")
        if max(request.prompt_ids) >= self._loaded.vocab_size:
            raise UserError(
                f"The prompt has token {max(request.prompt_ids)}, the model's vocabulary ends at"
                f" {self._loaded.vocab_size}: the tokenizer belongs to another model."
            )
        if prompt >= context:
            raise UserError(
                f"The prompt has {prompt} tokens; {self._loaded.name} takes {context} with the"
                " answer included. Shorten it."
            )
        return min(request.max_new_tokens, context - prompt)

    def cancel(self) -> list[RequestRecord]:
        """End all requests where they are."""
        return [
            self._finish(active, FinishReason.CANCELLED)
            for active in self._slots
            if active is not None
        ]

    def drop(self, index: int, reason: str = FinishReason.CANCELLED) -> RequestRecord:
        """End one request where it is. Raises KeyError where it is not under way."""
        for active in self._slots:
            if active is not None and active.request.index == index:
                return self._finish(active, FinishReason(reason))
        raise KeyError(index)

    def close(self) -> None:
        """The engine is needed no more: ranks that it holds are let go of."""
        if self.parallel is not None:
            self.parallel.close()

    # -- one step ------------------------------------------------------------------------------

    def step(self, budgets: Mapping[int, int] | None = None) -> StepOutput:
        """Draft, score, verify, commit: every active request moves on by one token or more.

        `budgets` bounds the drafted nodes of this step's trees, by request index.
        """
        batch = [active for active in self._slots if active is not None]
        clock = self._clock
        clock.start()
        sequences = [active.sequence for active in batch]
        for active in batch:
            active.sequence.budget = (budgets or {}).get(active.request.index)
        trees = self._drafter.propose(sequences)
        for sequence, tree in zip(sequences, trees, strict=True):
            if sequence.budget is not None:
                tree.cut(sequence.budget)
        clock.lap("draft")

        by_slot = {s.slot: tree for s, tree in zip(sequences, trees, strict=True)}
        scores = self._target.score(by_slot)
        clock.lap("score")

        verdicts = self.verifier.verify_batch(
            trees, [scores[s.slot] for s in sequences], sequences, self._target.runner
        )
        clock.lap("verify")

        ends: list[FinishReason | None] = []
        num_kept: list[int] = []
        for active, tree, verdict in zip(batch, trees, verdicts, strict=True):
            emitted = [int(tree.tokens_M[node]) for node in verdict.path_A[1:]]
            emitted.append(verdict.next_token)
            self._target.commit(active.sequence.slot, verdict.path_A)
            kept, end = self._advance(active, emitted)
            if end is None:
                seen = scores[active.sequence.slot]
                self._drafter.observe(active.sequence, tree, verdict, seen)
            ends.append(end)
            num_kept.append(kept)
        clock.lap("commit")

        steps = [
            self._record(active, tree, scores[active.sequence.slot], verdict, kept, len(batch))
            for active, tree, verdict, kept in zip(batch, trees, verdicts, num_kept, strict=True)
        ]
        finished = [
            self._finish(active, end)
            for active, end in zip(batch, ends, strict=True)
            if end is not None
        ]
        clock.lap("record")
        times, now = clock.times(), perf_counter_ns() - self._origin_ns
        for record in steps:
            record.times, record.time_ns = times, now
        self._num_steps += 1
        return StepOutput(steps, finished)

    def _advance(self, active: Active, emitted: list[int]) -> tuple[int, FinishReason | None]:
        """Append what was emitted; returns how much is kept and why the request ends, if so."""
        sequence = active.sequence
        active.num_steps += 1
        active.num_emitted += len(emitted)
        active.num_accepted += len(emitted) - 1
        kept, end = len(emitted), None
        for at, token in enumerate(emitted):
            if token in self._eos:
                kept, end = at + 1, FinishReason.EOS
                break
        if kept >= sequence.remaining and not (end and kept == sequence.remaining):
            kept, end = sequence.remaining, FinishReason.LENGTH
        active.emitted.extend(emitted[:kept])
        if active.request.stop:
            cut = self._stop_cut(active, kept)
            if cut is not None:
                kept, end = cut, FinishReason.STOP_STRING
        sequence.tokens.extend(emitted)
        sequence.remaining -= kept
        sequence.noise.forget_before(sequence.position)
        active.ended_ns = perf_counter_ns()
        return kept, end

    def _stop_cut(self, active: Active, kept: int) -> int | None:
        """Tokens of this step up to the one that completes a stop string, None if none does."""
        tokens = active.emitted
        longest = max(len(stop) for stop in active.request.stop)
        before = len(tokens) - kept
        for count in range(1, kept + 1):
            window = tokens[max(0, before + count - longest - 8) : before + count]
            text = decode(self._loaded.tokenizer, window)
            if any(stop in text for stop in active.request.stop):
                del tokens[before + count :]
                return count
        return None

    # -- what it leaves behind -----------------------------------------------------------------

    def _record(
        self,
        active: Active,
        tree: TokenTree,
        scores: Scores,
        verdict: Verdict,
        kept: int,
        batch: int,
    ) -> StepRecord:
        path = verdict.path_A
        active.num_drafted += tree.num_drafted
        emitted = [int(tree.tokens_M[node]) for node in path[1:]] + [verdict.next_token]
        logprobs = scores.node_logprobs(tree)
        last = scores.logprob(path[-1], verdict.next_token)
        return StepRecord(
            request=active.request.index,
            step=active.num_steps - 1,
            position=active.sequence.position - len(emitted),
            tree=tree,
            verdict=verdict,
            target_logprob_M=logprobs,
            emitted=emitted,
            num_kept=kept,
            emitted_logprob=np.append(logprobs[path[1:]], np.float32(last)),
            top2_gap=scores.top2_gap(path),
            times=StageTimes(),
            batch=batch,
            batch_step=self._num_steps,
            budget=self._budget,
        )

    def _finish(self, active: Active, reason: FinishReason) -> RequestRecord:
        slot = active.sequence.slot
        self._target.release(slot)
        self._drafter.release(slot)
        self._slots[slot] = None
        request = active.request
        text = decode(self._loaded.tokenizer, active.emitted)
        for stop in request.stop if reason is FinishReason.STOP_STRING else ():
            text = text.partition(stop)[0]
        return RequestRecord(
            request=request.index,
            question_id=request.question_id,
            category=request.category,
            turn=request.turn,
            repeat=request.repeat,
            prompt=request.prompt,
            prompt_ids=list(request.prompt_ids),
            token_ids=active.emitted,
            text=text,
            finish_reason=reason,
            num_steps=active.num_steps,
            num_emitted=active.num_emitted,
            num_drafted=active.num_drafted,
            num_accepted=active.num_accepted,
            prefill_ns=active.prefill_ns,
            decode_ns=max(active.ended_ns - active.started_ns, 0),
            repetition=repetition(active.emitted),
        )

    def plain_step_ns(self, request: Request, *, steps: int = 5) -> int:
        """Median time of a plain target pass behind this prompt, for the live estimate."""
        self.check(request)
        assert not self.busy, "measure before requests are under way"
        self._target.admit({0: list(request.prompt_ids)})
        target, times = self._target.whole(), []
        for _ in range(steps + 2):  # two of them warm up
            start = perf_counter_ns()
            target.score({0: root_only(request.prompt_ids[-1])})
            self._synchronize()
            times.append(perf_counter_ns() - start)
            target.commit(0, [])
        self._target.release(0)
        return int(np.median(times[2:]))


def _synchronizer(device: str) -> Any:
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)
