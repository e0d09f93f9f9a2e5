"""What replicas in tests are built from, in their own processes, and the tokens they must bring."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from engine.cluster.replica import Served, Telling
from engine.decode import StepOutput
from engine.errors import UserError
from engine.requests import Request
from engine.sampling import Sampling
from engine.serving.scheduler import Scheduler
from engine.serving.trace import Order
from tests.engine.tiny import VOCAB, decode_all, engine_for, near, tiny

REPO = Path(__file__).resolve().parents[2]
SLOTS = 3
SAMPLING = Sampling(temperature=0.8, seed=11)
TREE = {"nodes": 6, "depth": 3}


class Slowed:
    """A decoder that takes longer; it dies at a request that bears a certain token."""

    def __init__(self, inner: Any, *, pause_s: float, poison: int | None = None) -> None:
        self._inner, self._pause_s, self._poison = inner, pause_s, poison

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add(self, *requests: Request) -> None:
        self._inner.add(*requests)
        if any(self._poison in request.prompt_ids[:1] for request in requests):
            self._poisoned = True

    def step(self, budgets: Any = None) -> StepOutput:
        time.sleep(self._pause_s)
        if getattr(self, "_poisoned", False):
            os._exit(7)
        return self._inner.step(budgets)


def engine(slots: int = SLOTS) -> Any:
    """The engine that every replica has: a tiny pair that samples."""
    target = tiny("llama")
    return engine_for(
        "dynamic-tree", TREE, target, near(target), sampling=SAMPLING,
        batch=slots,
    )  # fmt: skip


def build(arguments: dict[str, Any], on_progress: Telling) -> Served:
    """A replica with the tiny pair. `arguments`: pause_s, poison, refuse."""
    on_progress("Loading the tiny pair", 0.5)
    if arguments.get("refuse"):
        raise UserError("There is no model folder 'nowhere'.")
    if arguments.get("crash"):
        raise RuntimeError("the disk is gone")
    decoder = Slowed(
        engine(), pause_s=arguments.get("pause_s", 0.0), poison=arguments.get("poison")
    )
    return Served(Scheduler({"": decoder}, max_waiting=10**6), slots=SLOTS, facts={"mode": "eager"})


def orders(count: int, *, at: int = 0, max_new_tokens: int = 20) -> list[Order]:
    """Requests of different prompts and lengths."""
    return [
        Order(
            Request(
                i, "", tuple((5 * i + 3 * j) % VOCAB for j in range(2 + i % 7)),
                max_new_tokens + i % 9,
            ),
            at,
        )
        for i in range(count)
    ]  # fmt: skip


def expected(wanted: list[Order]) -> dict[int, list[int]]:
    """The tokens of one plain engine that decodes the requests one after another."""
    done, _ = decode_all(engine(slots=1), [order.request for order in wanted])
    return {index: record.token_ids for index, record in done.items()}
