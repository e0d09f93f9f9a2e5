"""Kernels and twins: what compiled code is worth, and how near kernels come to the bytes they move.

On a CPU: every job's twin against the NumPy code that does the same (verification rules on a tree
of 16 nodes, top-k of a row, moving an accepted path through a cache), in turns, over vocabularies.
Which of the two the engine takes follows from such figures (docs/kernels.md).

On a GPU, as well: the step kernel of every rule, its gather alone, frontier expansion and the tree
mask, by CUDA events in a queue that never runs dry, against the bytes that must be read or written
once; `share` is that floor over the time, at the bandwidth of a plain copy measured beside them.
Two kernels that the engine does not use stand beside what it uses instead: frontier expansion
beside torch's operations, the tree mask beside inputs that the host makes (gpu_inputs.py).
Compiling the kernels takes up to a minute at first.

    python benchmarks/kernel_times.py            # a minute on a CPU
    python benchmarks/kernel_times.py --quick    # seconds, to see that it works

The last line is JSON. (Not named kernels.py: transformers looks for a package of that name.)
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch
from gpu_inputs import inputs_rows

from cuda_ext import memory
from cuda_ext.accept import Settings
from cuda_ext.arrays import GREEDY, RULES, Draws, RowStats, Trees, Verdicts
from cuda_ext.frontier import top_children
from cuda_ext.gather import as_words, gather_rows
from cuda_ext.mask import Inputs, NewNodes, SlotState, tree_inputs
from cuda_ext.step import Cache, step
from engine.device_candidates import top_of_rows
from engine.drafters.base import Sequence
from engine.growth import Chooser, Growth, Noise, Row, logsumexp, top_k, top_k_compiled
from engine.judging import judge, settings_for
from engine.rules import Verifier
from engine.sampling import Sampling
from engine.target import Scores
from engine.tree import Children, TokenTree
from engine.verify_paths import TYPICAL

VOCABULARIES = (4096, 32_000, 152_064)
POSITION = 50
#: cache of an 8B-shaped model: layers (keys and values), rows of a slot, features
LAYERS, ROWS, FEATURES = 64, 1024, 1024


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, small vocabularies")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    found: dict[str, Any] = {"cpu": on_cpu(VOCABULARIES[:1] if quick else VOCABULARIES, quick)}
    if torch.cuda.is_available() and not memory.SIMULATED:
        found["gpu"] = on_gpu(VOCABULARIES[-1:] if quick else VOCABULARIES[1:], quick)
        found["device"] = torch.cuda.get_device_name()
    print(json.dumps(found))
    return 0


# --- CPU ------------------------------------------------------------------------------------------


def on_cpu(vocabularies: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    """Microseconds of NumPy and of the twin, medians of calls in turn."""
    rows = []
    seconds = 0.2 if quick else 1.0
    for vocab_size in vocabularies:
        jobs = {f"verify {name}": verify_job(name, vocab_size) for name in RULES}
        jobs |= {f"top {k} of a row": top_job(k, vocab_size) for k in (2, 4, 16)}
        for name, (plain, twin) in jobs.items():
            rows.append(compared(name, vocab_size, plain, twin, seconds))
    rows.append(compared("move a path of 4", 0, *gather_job(), seconds))
    return rows


def compared(
    name: str, vocab_size: int, plain: Callable[[], Any], twin: Callable[[], Any], seconds: float
) -> dict[str, Any]:
    """One row, printed too."""
    for _ in range(3):  # warm-up: the twin is compiled
        plain()
        twin()
    times: dict[str, list[float]] = {"numpy": [], "twin": []}
    end = perf_counter() + seconds
    while perf_counter() < end or len(times["twin"]) < 5:
        for label, run in (("numpy", plain), ("twin", twin)):  # call by call: load hits few of them
            start = perf_counter()
            run()
            times[label].append((perf_counter() - start) * 1e6)
    medians = {label: statistics.median(values) for label, values in times.items()}
    ratio = medians["numpy"] / medians["twin"]
    print(
        f"{name:28} V {vocab_size:7,}  numpy {medians['numpy']:9.1f} us"
        f"  twin {medians['twin']:9.1f} us  {ratio:5.2f}x"
    )
    return {"job": name, "vocab_size": vocab_size, **medians, "ratio": ratio}


def verify_job(name: str, vocab_size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A tree of 16 nodes by the rule in Python and by its twin."""
    sampling = Sampling(temperature=0.0 if name == "greedy" else 0.8, seed=5)
    rule = "match" if name == "greedy" else name
    tree, scores, sequence = drafted(rule, sampling, vocab_size)
    verifier = Verifier(rule, sampling, kernels="off")
    settings = settings_for(rule, sampling, TYPICAL)
    assert settings is not None

    def twin() -> Any:
        return judge(settings, tree, scores.logits_NV, sampling=sampling, sequence=sequence)

    assert twin().path_A == verifier.verify(tree, scores, sequence).path_A
    return lambda: verifier.verify(tree, scores, sequence), twin


def drafted(rule: str, sampling: Sampling, vocab_size: int) -> tuple[TokenTree, Scores, Sequence]:
    """A tree of expansion 3, 2, 1 from a draft that resembles the target."""
    rng = np.random.default_rng(0)
    noise = Noise(sampling, request=1, vocab_size=vocab_size)
    growth = Growth([3])
    kinds = {"match": Children.COUPLED, "typical": Children.FIXED}
    kind = kinds.get(rule, Children.SAMPLED) if not sampling.greedy else Children.FIXED
    chooser = Chooser(kind, sampling, noise, POSITION, rule == "multi-step")
    logits = rng.normal(0, 3, (16, vocab_size)).astype(np.float32)
    frontier = [0]
    for width in (3, 2, 1):
        level = []
        for node in frontier:
            own = logits[node] + rng.normal(0, 0.5, vocab_size).astype(np.float32)
            level += growth.add_children(
                node, *chooser.choose(growth, node, Row(own, logsumexp(own)), width)
            )
        frontier = level
    tree, _ = growth.finish(kind)
    scores = Scores(logits, np.zeros(16, np.float32))
    return tree, scores, Sequence(0, list(range(POSITION)), 100, noise)


def top_job(count: int, vocab_size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Children of one node."""
    row = np.random.default_rng(1).normal(0, 3, vocab_size).astype(np.float32)
    return lambda: top_k(row, count, 1.0), lambda: top_k_compiled(row, count, 1.0)


def gather_job() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A path through a cache of the embedded target's size, by torch and by the twin."""
    cache = torch.zeros(16, 2, 512, 384)
    given = [np.array(v, np.int32) for v in ([1], [100], [[0, 2, 5, 7]], [4])]
    words = as_words(cache)
    source = torch.tensor([102, 105, 107])

    def by_torch() -> None:
        cache[:, 1, 101:104] = cache[:, 1].index_select(1, source)

    return by_torch, lambda: gather_rows(words.numpy(), *given)


# --- GPU ------------------------------------------------------------------------------------------


def on_gpu(vocabularies: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    """Microseconds by events, the bytes that must move, and their share of a copy's bandwidth."""
    rounds = 20 if quick else 100
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = timed(lambda: target.copy_(source), rounds)
    rate = 2 * source.numel() / copied  # bytes per microsecond
    rows = []
    for num_trees in (1, 8):
        for num_nodes in (16, 64):
            for vocab_size in vocabularies:
                for name in RULES:
                    rows.append(step_row(name, num_trees, num_nodes, vocab_size, rate, rounds))
                rows += top_rows(num_trees * num_nodes, vocab_size, rate, rounds)
            rows.append(gather_row(num_trees, rate, rounds))
            rows.append(mask_row(num_trees, num_nodes, rate, rounds))
    for vocab_size in vocabularies:  # as many as a draft pass mostly expands
        rows += top_rows(4, vocab_size, rate, rounds)
    return rows + inputs_rows(rounds)


def timed(run: Callable[[], Any], rounds: int) -> float:
    """Median microseconds of one call, by events; launches queue up behind a long one."""
    for _ in range(3):
        run()
    busy = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    torch.cuda.synchronize()
    for _ in range(40):
        busy.zero_()
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(one.elapsed_time(other) * 1e3 for one, other in pairwise(events))


def told(name: str, sizes: str, spent: float, moved: int, rate: float) -> dict[str, Any]:
    """One row, printed too."""
    share = moved / rate / spent
    print(f"{name:28} {sizes:24} {spent:9.1f} us  {moved / 1e6:9.2f} MB  {share:6.1%} of a copy")
    return {"job": name, "sizes": sizes, "us": spent, "bytes": moved, "share": share}


def on_cuda(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).cuda()


def step_row(
    name: str, num_trees: int, num_nodes: int, vocab_size: int, rate: float, rounds: int
) -> dict[str, Any]:
    """Verify, gather and lengths in one launch: bfloat16 logits, chains of 4 under a root."""
    rng = np.random.default_rng(0)
    rule, grid = RULES[name], (num_trees, num_nodes)
    parents = np.maximum(np.arange(num_nodes) - 4, 0).astype(np.int32)
    parents[0] = -1
    trees = Trees(
        on_cuda(rng.integers(0, vocab_size, grid)),
        on_cuda(np.tile(parents, (num_trees, 1))),
        on_cuda(np.full(num_trees, num_nodes, np.int32)),
        on_cuda(np.arange(num_trees, dtype=np.int32) * num_nodes),
    )
    shape = (num_trees * num_nodes, vocab_size)
    logits = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    depths = -(-num_nodes // 4) + 1
    noisy, drawn = rule in (1, 2), rule >= 3
    noise = torch.rand(num_trees * depths if noisy else 0, vocab_size, device="cuda").double()
    draft = torch.rand(num_trees * num_nodes if drawn else 0, vocab_size, device="cuda").double()
    if drawn:
        draft /= draft.sum(1, keepdim=True)
    noise_row = np.minimum((np.arange(num_nodes) + 3) // 4, depths - 1)[None]
    noise_row = noise_row + depths * np.arange(num_trees)[:, None]
    draft_row = np.arange(num_trees * num_nodes).reshape(grid)
    draws = Draws(
        noise, on_cuda(noise_row.astype(np.int32)), on_cuda(rng.random((*grid, 2))),
        draft, on_cuda(draft_row.astype(np.int32)),
    )  # fmt: skip
    kinds = (torch.int64, torch.float64, torch.float64)
    stats = RowStats(*(torch.zeros(grid, dtype=kind, device="cuda") for kind in kinds))
    laws = torch.zeros(2, num_trees, vocab_size if drawn else 0, device="cuda").double()
    out = Verdicts(
        torch.zeros(grid, dtype=torch.int32, device="cuda"),
        torch.zeros(num_trees, dtype=torch.int32, device="cuda"),
        torch.zeros(num_trees, dtype=torch.int64, device="cuda"),
        torch.zeros(num_trees, dtype=torch.int32, device="cuda"),
        torch.zeros(grid, dtype=torch.uint8, device="cuda"),
        torch.zeros(grid, dtype=torch.float32, device="cuda"),
    )
    cache = torch.zeros(LAYERS, num_trees, ROWS, FEATURES, device="cuda", dtype=torch.bfloat16)
    slots = on_cuda(np.arange(num_trees, dtype=np.int32))
    lengths = torch.zeros(num_trees, dtype=torch.int32, device="cuda")
    done = torch.zeros(num_trees, dtype=torch.int32, device="cuda")
    groups = [
        type(group)(*map(memory.on_device, group))
        for group in (trees, draws, stats, out, Cache(as_words(cache), slots, lengths))
    ]
    scratch = [memory.on_device(law) for law in laws]

    def run() -> None:
        lengths.zero_()
        step(
            Settings(rule, 1.0 if rule == GREEDY else 1.25), groups[0], logits,
            draws=groups[1], stats=groups[2], scratch=scratch, out=groups[3],
            cache=groups[4], done_B=done, how="kernel",
        )  # fmt: skip

    spent = timed(run, rounds)
    moved = logits.numel() * 2 + noise.numel() * 8
    if drawn:  # the root's law alone is sure to be read
        moved += num_trees * vocab_size * 8 * 2
    sizes = f"B {num_trees} N {num_nodes} V {vocab_size:,}"
    return told(f"step {name}", sizes, spent, moved, rate)


def top_rows(num_rows: int, vocab_size: int, rate: float, rounds: int) -> list[dict[str, Any]]:
    """The 8 best children of every frontier node, by the kernel and by what the engine runs."""
    scores = torch.randn(num_rows, vocab_size, device="cuda", dtype=torch.bfloat16)
    row = on_cuda(np.arange(num_rows, dtype=np.int32))
    tokens = torch.zeros(num_rows, 8, dtype=torch.int64, device="cuda")
    best = torch.zeros(num_rows, 8, dtype=torch.float64, device="cuda")
    norm = torch.zeros(num_rows, dtype=torch.float64, device="cuda")
    ways: dict[str, Callable[[], Any]] = {
        "top 8 children": lambda: top_children(
            scores, row, tokens_FK=tokens, best_FK=best, log_norm_F=norm
        ),
        "top 8 children, torch": lambda: top_of_rows(scores, 8),
    }
    sizes = f"F {num_rows} V {vocab_size:,}"
    return [
        told(name, sizes, timed(run, rounds), scores.numel() * 2, rate)
        for name, run in ways.items()
    ]


def gather_row(num_trees: int, rate: float, rounds: int) -> dict[str, Any]:
    """A path of 8 rows, all but the root's moved."""
    cache = torch.zeros(LAYERS, num_trees, ROWS, FEATURES, device="cuda", dtype=torch.bfloat16)
    path = np.tile(np.arange(8, dtype=np.int32) * 3, (num_trees, 1))
    given = [
        on_cuda(array)
        for array in (
            np.arange(num_trees, dtype=np.int32), np.full(num_trees, 500, np.int32), path,
            np.full(num_trees, 8, np.int32),
        )
    ]  # fmt: skip
    spent = timed(lambda: gather_rows(as_words(cache), *given), rounds)
    return told("gather", f"B {num_trees} A 8", spent, LAYERS * num_trees * 7 * FEATURES * 4, rate)


def mask_row(num_trees: int, num_nodes: int, rate: float, rounds: int) -> dict[str, Any]:
    """Inputs of a pass behind a prefix of 900 rows."""
    grid, cols = (num_trees, num_nodes), 1008
    parents = np.tile(np.maximum(np.arange(num_nodes) - 4, -1).astype(np.int32), (num_trees, 1))
    whole = [torch.zeros(grid, dtype=torch.int64, device="cuda") for _ in range(4)]
    mask = torch.zeros(*grid, cols, device="cuda")
    inputs = Inputs(*whole[:3], mask, mask[:0])
    new = NewNodes(whole[3], on_cuda(parents), on_cuda(np.full(num_trees, num_nodes, np.int32)))
    slots = SlotState(
        on_cuda(np.full(num_trees, 900, np.int32)), on_cuda(np.zeros(num_trees, np.int32)),
        torch.zeros(num_trees, 80, dtype=torch.int32, device="cuda"),
        torch.zeros(num_trees, 80, 80, dtype=torch.uint8, device="cuda"),
    )  # fmt: skip
    spent = timed(lambda: tree_inputs(inputs, new, slots, rows_per_slot=ROWS), rounds)
    sizes = f"B {num_trees} N {num_nodes} L {cols}"
    return told("tree mask", sizes, spent, mask.numel() * 4, rate)


if __name__ == "__main__":
    raise SystemExit(main())
