"""A decoder of known outputs: no weights, no time but what a test says a step takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.decode import StepOutput
from engine.errors import DecodeError, UserError
from engine.records import (
    FinishReason,
    Origin,
    RequestRecord,
    StageTimes,
    StepRecord,
    Verdict,
)
from engine.requests import Request
from engine.serving.trace import Order
from engine.tree import tree_from_lists

SECOND = 1_000_000_000


class Clock:
    """Nanoseconds that pass when told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def pass_seconds(self, seconds: float) -> None:
        self.ns += round(seconds * SECOND)


class MockDecoder:
    """Emits 100 * index, 100 * index + 1, ...: `accepts` drafted tokens a step and one more.

    Slots are kept by number, and a wrong use of them is an AssertionError, as in the engine.
    """

    def __init__(
        self,
        num_slots: int = 2,
        *,
        clock: Clock | None = None,
        step_seconds: float = 0.1,
        accepts: int = 1,
        context: int = 100,
    ) -> None:
        self.slots: list[Request | None] = [None] * num_slots
        self.emitted: dict[int, list[int]] = {}
        self.budgets: list[Mapping[int, int] | None] = []
        self.order: list[int] = []  # requests as they were admitted
        self.fails_on: set[int] = set()  # steps with one of these raise DecodeError
        self.stuck = False  # dropping fails too
        self.unreadable: set[int] = set()  # requests whose prompts cannot be prefilled
        self.added: list[list[int]] = []  # requests that were prefilled together
        self.token_seconds = 0.0  # of a prompt
        self._clock, self._seconds = clock or Clock(), step_seconds
        self._accepts, self._context = accepts, context

    @property
    def num_free(self) -> int:
        return self.slots.count(None)

    @property
    def busy(self) -> bool:
        return any(request is not None for request in self.slots)

    def check(self, request: Request) -> int:
        if len(request.prompt_ids) >= self._context:
            raise UserError("The prompt is too long.")
        return min(request.max_new_tokens, self._context - len(request.prompt_ids))

    def add(self, *requests: Request) -> None:
        self._clock.pass_seconds(self.token_seconds * sum(len(r.prompt_ids) for r in requests))
        if any(request.index in self.unreadable for request in requests):
            raise MemoryError("no room for the prefix")
        self.added.append([request.index for request in requests])
        for request in requests:
            assert self.num_free
            assert request.index not in [there.index for there in self.slots if there]
            self.slots[self.slots.index(None)] = request
            self.emitted[request.index] = []
            self.order.append(request.index)

    def step(self, budgets: Mapping[int, int] | None = None) -> StepOutput:
        self.budgets.append(None if budgets is None else dict(budgets))
        self._clock.pass_seconds(self._seconds)
        batch = [request for request in self.slots if request is not None]
        assert batch, "a step of nothing"
        if any(request.index in self.fails_on for request in batch):
            raise DecodeError("mock gave NaN or infinite logits")
        steps = [self._step(request, (budgets or {}).get(request.index)) for request in batch]
        done = [r for r in batch if len(self.emitted[r.index]) == self.check(r)]
        return StepOutput(steps, [self._finish(r, FinishReason.LENGTH) for r in done])

    def drop(self, index: int, reason: str = FinishReason.CANCELLED) -> RequestRecord:
        if self.stuck:
            raise DecodeError("mock is stuck")
        request = next((there for there in self.slots if there and there.index == index), None)
        if request is None:
            raise KeyError(index)
        return self._finish(request, FinishReason(reason))

    def _step(self, request: Request, budget: int | None) -> StepRecord:
        drafted = self._accepts if budget is None else min(budget, self._accepts)
        out = self.emitted[request.index]
        first = 100 * request.index + len(out)
        emitted = list(range(first, first + drafted + 1))
        kept = min(len(emitted), self.check(request) - len(out))
        out.extend(emitted[:kept])
        tree = tree_from_lists(
            [first - 1, *emitted[:-1]], list(range(-1, drafted)), [0.0] * (drafted + 1)
        )
        tree.draft_passes, tree.expected_tokens = drafted, 1.0 + 0.5 * drafted
        nodes = drafted + 1
        return StepRecord(
            request=request.index,
            step=0,
            position=len(request.prompt_ids) + len(out),
            tree=tree,
            verdict=Verdict(
                list(range(nodes)), emitted[-1], Origin.BONUS,
                np.ones(nodes, np.uint8), np.ones(nodes, np.float32),
            ),
            target_logprob_M=np.zeros(nodes, np.float32),
            emitted=emitted,
            num_kept=kept,
            emitted_logprob=np.zeros(nodes, np.float32),
            top2_gap=np.zeros(nodes, np.float32),
            times=StageTimes(draft=10, score=20, verify=30, commit=40),
        )  # fmt: skip

    def _finish(self, request: Request, reason: FinishReason) -> RequestRecord:
        self.slots[self.slots.index(request)] = None
        tokens = self.emitted[request.index]
        return RequestRecord(
            request=request.index, question_id="", category="", turn=0, repeat=0, prompt="",
            prompt_ids=list(request.prompt_ids), token_ids=tokens, text="", finish_reason=reason,
            num_steps=0, num_emitted=len(tokens), num_drafted=0, num_accepted=0, prefill_ns=0,
            decode_ns=0, repetition=0.0,
        )  # fmt: skip


def order(index: int, *, tokens: int = 4, prompt: int = 3, at: float = 0.0, **more) -> Order:
    """An order that came at a second and wants so many tokens."""
    for name in ("deadline", "timeout"):
        if name in more:
            more[f"{name}_ns"] = round(more.pop(name) * SECOND)
    request = Request(index, "", (1,) * prompt, tokens)
    return Order(request, arrival_ns=round(at * SECOND), **more)
