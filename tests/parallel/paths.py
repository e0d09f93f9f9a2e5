"""A draft whose logits are a pure function of the path, and ranks that are threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from engine.runner import NodeLogits, Nodes
from engine.sampling import Sampling, generator
from tests.engine.tiny import VOCAB

SHARP = 3.0


class PathRunner:
    """Stands for a `TreeRunner`. The same path gives the same logits in whatever pass it runs."""

    def __init__(self, num_slots: int, *, vocab_size: int = VOCAB, max_tree: int = 10_000) -> None:
        self.loaded = self
        self.name, self.dtype, self.vocab_size = "path", "float32", vocab_size
        self.max_tree = max_tree
        self.length_B = np.zeros(num_slots, np.int32)
        self.count_B = np.zeros(num_slots, np.int32)
        self._prefix: list[list[int]] = [[] for _ in range(num_slots)]
        self._paths: list[list[tuple[int, ...]]] = [[] for _ in range(num_slots)]
        self.passes: list[int] = []  # rows of each

    def admit_all(self, prefixes: dict[int, list[int]]) -> None:
        for slot, tokens in prefixes.items():
            self._prefix[slot], self._paths[slot] = list(tokens), []
            self.length_B[slot], self.count_B[slot] = len(tokens), 0

    def extend(self, slot: int, tokens: list[int]) -> None:
        self._prefix[slot] += tokens
        self.length_B[slot] = len(self._prefix[slot])

    def release(self, slot: int) -> None:
        self.admit_all({slot: []})

    def forward(self, nodes: dict[int, Nodes]) -> NodeLogits:
        rows, first = [], {}
        for slot, new in nodes.items():
            first[slot] = len(rows)
            for token, parent in zip(new.tokens_N, new.parents_N, strict=True):
                above = self._paths[slot][parent] if parent >= 0 else ()
                if parent < -1:
                    raise AssertionError("a node hangs on one that never ran")
                path = (*above, int(token))
                self._paths[slot].append(path)
                rows.append(logits_after((*self._prefix[slot], *path), self.vocab_size))
            self.count_B[slot] = len(self._paths[slot])
            assert self.count_B[slot] <= self.max_tree
        self.passes.append(len(rows))
        logits_RV = torch.from_numpy(np.stack(rows))
        return NodeLogits(logits_RV, torch.logsumexp(logits_RV, -1), first)

    def keep(self, slot: int, rows: list[int]) -> None:
        paths = self._paths[slot]
        kept = [paths[row] for row in rows]
        assert all(len(path) == at + 1 for at, path in enumerate(kept)), "not a path"
        self._prefix[slot] += [path[-1] for path in kept]
        self.length_B[slot], self.count_B[slot] = len(self._prefix[slot]), 0
        self._paths[slot] = []


def logits_after(path: tuple[int, ...], vocab_size: int) -> np.ndarray:
    """Float32 logits that depend on nothing but these tokens."""
    rng = np.random.default_rng([len(path), *path])
    return (rng.standard_normal(vocab_size) * SHARP).astype(np.float32)


class ThreadExchange:
    """All-gather among threads; a thread that fails frees the others."""

    def __init__(self, rank: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(board)
        self._board, self._barrier = board, barrier
        self.bytes = 0

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        self._board[self.rank] = values.copy()
        self.bytes += values.nbytes
        self._barrier.wait(30)
        found = np.stack(self._board)
        self._barrier.wait(30)
        return found


def on_ranks(size: int, work: Any) -> list[Any]:
    """`work(exchange)` on so many threads; their outcomes in order. Raises what one raised."""
    board, barrier = [None] * size, threading.Barrier(size)
    outcomes: list[Any] = [None] * size
    errors: list[Exception] = []

    def run(rank: int) -> None:
        try:
            outcomes[rank] = work(ThreadExchange(rank, board, barrier))
        except Exception as error:  # noqa: BLE001  (told by the caller's thread)
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    if errors:
        raise errors[0]
    return outcomes


def random_walk(tree: Any, *, seed: int, step: int) -> list[int]:
    """An accepted path of a tree: random children down to a random depth."""
    rng = generator(Sampling(seed=seed), request=0, position=step, stream=0)
    path = [0]
    while rng.random() < 0.8:
        below = [n for n in range(1, tree.num_nodes) if tree.parents_M[n] == path[-1]]
        if not below:
            break
        path.append(below[int(rng.integers(len(below)))])
    return path
