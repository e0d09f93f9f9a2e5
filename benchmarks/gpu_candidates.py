"""A draft pass and its candidates: chosen on the host, or on the device (benchmarks/gpu.py).

The host's way copies all logits of the pass there and looks through them by NumPy and compiled
code; the device's looks through them where they are and copies a few numbers per node. Both are
what engines run (engine/candidates.py), the noise of coupled children being there already: it is
drawn once for drafting and verification either way.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from time import perf_counter
from typing import Any

import numpy as np
from gpu_measure import synchronize

from engine.candidates import DraftRows, Place
from engine.device_candidates import FEWEST
from engine.growth import Candidates, Chooser, Growth, Noise
from engine.runner import NodeLogits, Nodes, TreeRunner
from engine.sampling import Sampling
from engine.tree import Children

TOP_K = 4
WAYS = ("pass", "host", "device")
KINDS = ((Children.FIXED, Sampling()), (Children.COUPLED, Sampling(temperature=0.8)))


class Chosen:
    """Chooses children of all nodes of a pass, one way."""

    def __init__(self, runner: TreeRunner, kind: Children, sampling: Sampling, way: str) -> None:
        loaded = runner.loaded
        self._rows = DraftRows(
            loaded, kind=kind, sampling=sampling, vocab_size=loaded.vocab_size,
            on_device=way == "device",
        )  # fmt: skip
        self._choosers = {
            slot: Chooser(
                kind, sampling, Noise(sampling, request=slot, vocab_size=loaded.vocab_size),
                int(runner.length_B[slot]),
            )
            for slot in range(runner.num_slots)
        }  # fmt: skip

    def of(self, found: NodeLogits, size: int) -> list[Candidates]:
        """Candidates of `size` nodes of every slot, siblings."""
        places = {
            slot: Place(chooser.noise, [chooser.position] * size)
            for slot, chooser in self._choosers.items()
        }
        rows = self._rows.of(found, places)
        root = Growth([0])
        return [
            chooser.choose(root, 0, rows[found.first[slot] + at], TOP_K)
            for slot, chooser in self._choosers.items()
            for at in range(size)
        ]


def candidate_rows(
    runner: TreeRunner, *, nodes: Many[int], context: int, rounds: int
) -> list[dict[str, Any]]:
    """Milliseconds of passes over so many nodes of every slot until their candidates are known.

    The three ways take turns; the first round warms up (and records graphs) and is not counted.
    """
    slots, vocab_size = range(runner.num_slots), runner.loaded.vocab_size
    for slot in slots:
        runner.admit(slot, [1] * context)
    found = []
    for kind, sampling in KINDS:
        ways = {way: Chosen(runner, kind, sampling, way) for way in WAYS[1:]}
        for size in nodes:
            ms = np.full((rounds + 1, len(WAYS)), np.nan)
            same = True
            for number in range(rounds + 1):
                chosen = {}
                for column, way in enumerate(WAYS):
                    ms[number, column], chosen[way] = _timed(runner, ways.get(way), size)
                same &= _are_same(chosen["host"], chosen["device"])
            best = np.quantile(ms[1:], 0.25, axis=0).tolist()
            num_rows = size * runner.num_slots
            found.append({
                "children": kind.value, "batch": runner.num_slots, "execution": runner.run.mode,
                "nodes": size, **{f"{way}_ms": one for way, one in zip(WAYS, best, strict=True)},
                "host_bytes": num_rows * vocab_size * 4,
                "device_bytes": num_rows * ((2 + (kind is Children.COUPLED)) * FEWEST + 1) * 8,
                "same": same,
            })  # fmt: skip
    for slot in slots:
        runner.release(slot)
    return found


def _timed(runner: TreeRunner, chosen: Chosen | None, size: int) -> tuple[float, list[Candidates]]:
    """One pass, and what was chosen of it; without a way to choose, the pass alone."""
    new = Nodes([2 + at for at in range(size)], [-1] * size)
    synchronize(runner.loaded.device)
    start = perf_counter()
    found = runner.forward(dict.fromkeys(range(runner.num_slots), new))
    out = chosen.of(found, size) if chosen else []
    if chosen is None:
        synchronize(runner.loaded.device)
    took = (perf_counter() - start) * 1e3
    for slot in range(runner.num_slots):
        runner.keep(slot, [])
    return took, out


def _are_same(one: list[Candidates], other: list[Candidates]) -> bool:
    return all(
        a.tokens_K.tolist() == b.tokens_K.tolist()
        and np.allclose(a.logprobs_K, b.logprobs_K, rtol=0, atol=1e-5)
        for a, b in zip(one, other, strict=True)
    )
