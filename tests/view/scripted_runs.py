"""Scripted runs for tests of the view: real record types, invented contents."""

from __future__ import annotations

import threading
import time

import numpy as np

from engine.records import Fate, Origin, StageTimes, StepRecord, Verdict
from engine.tree import TokenTree, tree_from_lists
from workbench import metrics
from workbench.events import (
    Progress,
    RequestStarted,
    RunFinished,
    RunStarted,
    RunSummary,
    StepDone,
)
from workbench.snapshot import ACTIVE, LiveState, Snapshot
from workbench.spec import RunSpec

WORDS = ["def", "·read", "_text", "(", "path", ",", "·encoding", "=", "None", ")", ":", "\\n····",
         "return", "·self", ".", "_items", "[", "key", "]", "·in", "·for", "·x", "if", "·not",
         "<b>bold</b>", "\\t", "\\n", "·············", "'utf-8'", "é"]  # fmt: skip


def random_tree(rng: np.random.Generator, num_nodes: int, *, num_pruned: int = 0) -> TokenTree:
    """A tree of `num_nodes` with its root, then pruned ones; siblings differ in token."""
    total = num_nodes + num_pruned
    tokens, parents, logprobs = [0], [-1], [0.0]
    used: dict[int, int] = {}
    for node in range(1, total):
        recent = max(0, min(node, num_nodes) - 8) if rng.random() < 0.7 else 0
        parent = int(rng.integers(recent, min(node, num_nodes)))
        used[parent] = used.get(parent, 0) + 1
        tokens.append(int(rng.integers(0, 50)) * 1000 + used[parent])
        parents.append(parent)
        logprobs.append(float(np.log(rng.uniform(0.02, 0.98) / used[parent])))
    tree = tree_from_lists(tokens, parents, logprobs)
    tree.num_nodes = num_nodes
    tree.round_pruned_M[num_nodes:] = 2
    return tree


def random_step(
    rng: np.random.Generator, number: int, num_nodes: int = 12, *, num_pruned: int = 0
) -> StepDone:
    """A step whose verdict is right for its tree: one path, its other nodes judged in order."""
    tree = random_tree(rng, num_nodes, num_pruned=num_pruned)
    children = tree.children_of()
    fate = np.full(num_nodes, Fate.NOT_REACHED, np.uint8)
    fate[0] = Fate.ROOT
    path, node = [0], 0
    while children[node] and rng.random() < 0.8:
        chosen = int(rng.integers(0, len(children[node])))
        fate[children[node][:chosen]] = Fate.REJECTED
        node = children[node][chosen]
        fate[node] = Fate.ACCEPTED
        path.append(node)
    fate[children[node]] = Fate.REJECTED
    origin = Origin.CORRECTION if children[node] else Origin.BONUS
    emitted = [int(tree.tokens_M[n]) for n in path[1:]] + [999_999]
    verdict = Verdict(path, 999_999, origin, fate, np.full(num_nodes, np.nan, np.float32))
    target = np.log(rng.uniform(0.01, 1.0, num_nodes + num_pruned)).astype(np.float32)
    target[num_nodes:] = np.nan
    times = StageTimes(*(int(t * 1e6) for t in (2.1, 0.15, 7.4, 0.12, 0.2, 0.05, 0.3)))
    record = StepRecord(
        request=0, step=number, position=20, tree=tree, verdict=verdict, target_logprob_M=target,
        emitted=emitted, num_kept=len(emitted),
        emitted_logprob=np.full(len(emitted), -0.5, np.float32),
        top2_gap=np.ones(len(emitted), np.float32), times=times, batch_step=number,
    )  # fmt: skip
    pieces = [WORDS[int(token) // 1000 % len(WORDS)] for token in tree.tokens_M]
    texts = [
        pieces[n].replace("·", " ").replace("\\n", "\n").replace("\\t", "\t") for n in path[1:]
    ]
    return StepDone(record, pieces, [*texts, " end"])


def _plain(piece: str) -> str:
    return piece.replace("·", " ").replace("\\n", "\n").replace("\\t", "\t")


def scripted_steps(count: int, *, seed: int = 0, num_nodes: int = 12) -> list[StepDone]:
    rng = np.random.default_rng(seed)
    return [random_step(rng, number, num_nodes) for number in range(count)]


class FakeHandle:
    """Plays scripted steps by the clock; the same surface as the worker's handle."""

    def __init__(
        self, *, steps: int = 40, step_s: float = 0.05, load_s: float = 0.2, num_nodes: int = 12
    ) -> None:
        self._script = scripted_steps(steps, num_nodes=num_nodes)
        self._step_s, self._load_s = step_s, load_s
        self._lock = threading.Lock()
        self._state = LiveState()
        self._begun = 0.0
        self._played = 0
        self.specs: list[RunSpec] = []

    @property
    def active(self) -> bool:
        return self.snapshot().active

    def start(self, spec: RunSpec) -> None:
        with self._lock:
            self.specs.append(spec)
            self._begun, self._played = time.monotonic(), 0
            self._state.begin(spec)
            self._state.fold(Progress("load", "Loading pycode-target", 0.4))

    def stop(self) -> None:
        with self._lock:
            self._advance()
            self._state.fold(RunFinished(self._state.run_id, "cancelled", self._summary()))

    def snapshot(self) -> Snapshot:
        with self._lock:
            self._advance()
            return self._state.snapshot()

    def _summary(self) -> RunSummary:
        return metrics.summarise([step.record for step in self._script[: self._played]])

    def _advance(self) -> None:
        elapsed = time.monotonic() - self._begun - self._load_s
        if self._state.status not in ACTIVE or elapsed < 0:
            return
        if self._state.status == "starting":
            self._state.fold(RunStarted(f"fake-{len(self.specs)}", "eager", 6_000_000, 1))
            self._state.fold(RequestStarted(0, "", 0, self.specs[-1].prompt or ""))
        while self._played < min(int(elapsed / self._step_s), len(self._script)):
            self._state.fold(self._script[self._played])
            self._played += 1
        if self._played == len(self._script):
            self._state.fold(RunFinished(self._state.run_id, "finished", self._summary()))
