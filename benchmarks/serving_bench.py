"""Machinery of benchmarks/serving.py: arms that take turns, a scheduler's rounds, their times."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, NamedTuple

from engine.costs import Known, Profile
from engine.decode import Engine
from engine.engine import EngineConfig, build_engine
from engine.errors import UserError
from engine.registry import parse_options
from engine.requests import Request
from engine.sampling import Sampling
from engine.serving.scheduler import Scheduler
from engine.serving.trace import ArrivalRow, Order
from workbench.conversation import conversations
from workbench.job import use_threads
from workbench.models import Pair, load_pair
from workbench.profiling.measuring import measure_pair
from workbench.spec import RunSpec
from workbench.workloads import load_workload


class Arm(NamedTuple):
    """A way to decode. `slots` is how many requests share a pass."""

    label: str
    method: str
    options: dict[str, Any]
    budgets: str
    slots: int


@dataclass
class Times:
    """An arm's rounds, in seconds: from the end of prefill, and whole."""

    decode_R: list[float] = field(default_factory=list)
    whole_R: list[float] = field(default_factory=list)
    tokens: int = 0
    steps: int = 0
    nodes: int = 0
    differing: int = 0  # requests whose tokens were not those of plain decoding


class Bench:
    """The pair, its prompts, and engines as they are asked for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.spec = RunSpec(
            target=arguments.target, draft=arguments.draft, workload=arguments.workload,
            max_new_tokens=arguments.max_new_tokens, chat_template=False,
        )  # fmt: skip
        use_threads(arguments.threads)
        self.pair: Pair = load_pair(self.spec, on_progress=lambda message, share: None)
        questions = load_workload(arguments.workload)
        talks = conversations(questions, tokenizer=self.pair.target.tokenizer, spec=self.spec)
        self.prompts = [talk.next_request().prompt_ids for talk in talks]
        self.modes: set[str] = set()

    def requests(self, number: int, count: int) -> list[Request]:
        """The requests of a round: other prompts in each."""
        first = number * count
        return [
            Request(at, "", self.prompts[at % len(self.prompts)], self.arguments.max_new_tokens)
            for at in range(first, first + count)
        ]

    def engine(self, arm: Arm, known: Callable[[str], Known]) -> Engine:
        """An engine for an arm."""
        longest = max(map(len, self.prompts)) + self.arguments.max_new_tokens
        config = EngineConfig(
            method=arm.method, options=parse_options(arm.method, arm.options),
            sampling=Sampling(), batch=arm.slots, execution=self.arguments.execution,
            ignore_eos=True, capacity=min(longest, self.pair.target.context_length),
            profile_for=known,
        )  # fmt: skip
        draft = None if arm.method == "autoregressive" else self.pair.draft
        engine = build_engine(config, target=self.pair.target, draft=draft)
        self.modes.add(engine.mode)
        return engine

    def profile(self, slots: int) -> Callable[[str], Known]:
        """Costs of passes at this batch, measured now."""
        measured = measure_pair(
            self.pair, execution=self.arguments.execution,
            extent=self.arguments.extent._replace(batch=slots),
            on_progress=lambda phase, message, share: None, should_stop=lambda: False,
        )  # fmt: skip
        return lambda mode: Known(Profile(measured.costs), f"measured at batch {slots}")


def measure(bench: Bench, arms: list[Arm], *, requests: int, slots: int) -> dict[str, Times]:
    """Rounds of all arms in turn; the first arm is the one whose tokens the others must have."""
    known = {size: bench.profile(size) for size in sorted({arm.slots for arm in arms})}
    engines = {arm.label: bench.engine(arm, known[arm.slots]) for arm in arms}
    times = {arm.label: Times() for arm in arms}
    for number in range(-bench.arguments.warm_up, bench.arguments.rounds):
        tell(f"{slots} at once, round {number + 1} of {bench.arguments.rounds}")
        asked = bench.requests(number + bench.arguments.warm_up, requests)
        outputs: dict[str, dict[int, list[int]]] = {}
        shift = number % len(arms)
        for arm in arms[shift:] + arms[:shift]:
            into = times[arm.label] if number >= 0 else None
            outputs[arm.label] = serve(engines[arm.label], asked, arm.budgets, into)
        expected = outputs[arms[0].label]
        for label, found in outputs.items():
            times[label].differing += sum(found[at] != expected[at] for at in expected)
    return times


def serve(
    engine: Engine, requests: Sequence[Request], budgets: str, into: Times | None
) -> dict[int, list[int]]:
    """All requests through a scheduler, as many at once as there are slots; tokens by index."""
    scheduler = Scheduler({"": engine}, budgets=budgets, max_waiting=len(requests) + 1)
    rows: dict[int, ArrivalRow] = {}
    tokens: dict[int, list[int]] = {}
    begin = perf_counter_ns()
    for request in requests:
        scheduler.submit(Order(request, 0))
    steps = []
    while scheduler.busy:
        changes = scheduler.step()
        rows |= {row.request: row for row in changes.arrivals}
        tokens |= {record.request: record.token_ids for record in changes.finished}
        steps += changes.steps
    whole_ns = perf_counter_ns() - begin
    lost = [row.message for row in rows.values() if row.reason != "length"]
    if lost:
        raise UserError(f"{len(lost)} requests did not complete: {lost[0]}")
    if into is not None:
        prefill_ns = sum((row.prefilled_ns or 0) - (row.admitted_ns or 0) for row in rows.values())
        into.decode_R.append((whole_ns - prefill_ns) / 1e9)
        into.whole_R.append(whole_ns / 1e9)
        into.tokens += sum(map(len, tokens.values()))
        into.steps += len(steps)
        into.nodes += sum(step.tree.num_drafted for step in steps)
    return tokens


def tell(message: str) -> None:
    """Progress on stderr."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)
