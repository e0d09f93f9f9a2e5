"""Random trees, logits and randomness, and batches of them as kernels take them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from cuda_ext import memory
from cuda_ext.accept import Settings, new_scratch
from cuda_ext.arrays import Draws, Plain, RowStats, Trees, Verdicts, new_stats, new_verdicts


class Case(NamedTuple):
    """One tree and all that a rule may ask for."""

    tokens: list[int]
    parents: list[int]
    logits_NV: np.ndarray  # float32
    noise_NV: np.ndarray  # float64, one row per depth
    draft_NV: np.ndarray  # float64
    uniforms_N2: np.ndarray


class Batch(NamedTuple):
    """Arguments of `accept`."""

    trees: Trees
    logits_RV: Any
    draws: Draws
    stats: RowStats
    scratch: Any
    out: Verdicts


def real_device() -> bool:
    return torch.cuda.is_available() and not memory.SIMULATED


def depth_of(parents: list[int]) -> list[int]:
    depth = [0] * len(parents)
    for node in range(1, len(parents)):
        depth[node] = depth[parents[node]] + 1
    return depth


def random_case(
    rng: np.random.Generator, *, num_nodes: int, vocab_size: int, replacement: bool | None = None
) -> Case:
    """A tree whose children are distinct and likely; drawn from q if `replacement` is given."""
    logits = rng.normal(0, 2, (num_nodes, vocab_size)).astype(np.float32)
    draft = logits + rng.normal(0, 1, logits.shape)
    draft = np.exp(draft - draft.max(1, keepdims=True))
    draft[rng.random(draft.shape) < 0.1] = 0.0
    draft[:, 0] += 1e-3
    draft /= draft.sum(1, keepdims=True)
    tokens, parents = [int(rng.integers(vocab_size))], [-1]
    taken: dict[int, list[int]] = {}
    for node in range(1, num_nodes):
        while True:
            parent = int(rng.integers(max(0, node - 4), node))
            open_ = draft[parent].copy()
            if not replacement:
                open_[taken.get(parent, [])] = 0.0
            if open_.sum() > 0.0:
                break
        token = int(rng.choice(vocab_size, p=open_ / open_.sum()))
        taken.setdefault(parent, []).append(token)
        tokens.append(token)
        parents.append(parent)
    by_depth = rng.gumbel(size=(num_nodes, vocab_size))
    uniforms = rng.random((num_nodes, 2))
    edge = rng.random(uniforms.shape)
    uniforms[edge < 0.1] = 0.0
    uniforms[edge > 0.9] = np.nextafter(1.0, 0.0)
    return Case(tokens, parents, logits, by_depth[depth_of(parents)], draft, uniforms)


def batch_of(
    cases: list[Case], settings: Settings, *, width: int | None = None, packed: bool = False
) -> Batch:
    """Padded to `width` nodes, logits padded too or packed one after another."""
    count, vocab_size = len(cases), cases[0].logits_NV.shape[1]
    width = width or max(len(case.tokens) for case in cases)
    tokens = np.full((count, width), -7, np.int64)  # padding must not matter
    parents = np.full((count, width), 5000, np.int32)
    num_nodes = np.array([len(case.tokens) for case in cases], np.int32)
    first = np.arange(count, dtype=np.int32) * width
    if packed:
        first = (np.cumsum(num_nodes) - num_nodes).astype(np.int32)
    rows = int(first[-1]) + width
    logits = np.full((rows, vocab_size), np.nan, np.float32)
    noise_row = np.zeros((count, width), np.int32)
    draft_row = np.full((count, width), -1, np.int32)
    uniforms = np.zeros((count, width, 2))
    noise, draft = [], []
    for b, case in enumerate(cases):
        size = len(case.tokens)
        tokens[b, :size], parents[b, :size] = case.tokens, case.parents
        logits[first[b] : first[b] + size] = case.logits_NV
        uniforms[b, :size] = case.uniforms_N2
        noise_row[b, :size] = np.arange(size) + sum(map(len, noise))
        draft_row[b, :size] = np.arange(size) + sum(map(len, draft))
        draft_row[b, :size][~np.isin(np.arange(size), case.parents)] = -1
        noise.append(case.noise_NV)
        draft.append(case.draft_NV)
    return Batch(
        Trees(tokens, parents, num_nodes, first),
        logits,
        Draws(np.concatenate(noise), noise_row, uniforms, np.concatenate(draft), draft_row),
        new_stats(count, width),
        new_scratch(settings, count, vocab_size),
        new_verdicts(count, width),
    )


def to_device(group: Any, device: str) -> Any:
    """The same arrays in the memory of a GPU."""
    if isinstance(group, np.ndarray):
        return torch.from_numpy(group).to(device)
    if hasattr(group, "_fields"):
        return type(group)(*(to_device(each, device) for each in group))
    return group


def host(group: Any) -> Any:
    """And back."""
    if isinstance(group, torch.Tensor):
        return group.cpu().numpy()
    if hasattr(group, "_fields"):
        return type(group)(*(host(each) for each in group))
    return group


def assert_same_as(plain: Plain, out: Verdicts, b: int, *, rtol: float = 1e-5) -> None:
    """Row b of a batch is this verdict, and what stands behind it is blank."""
    size, length = len(plain.fate), len(plain.path)
    assert out.path_len_B[b] == length
    assert out.path_BN[b, :length].tolist() == plain.path
    assert (out.path_BN[b, length:] == -1).all()
    assert out.next_token_B[b] == plain.next_token
    assert out.origin_B[b] == plain.origin
    assert out.fate_BN[b, :size].tolist() == plain.fate
    np.testing.assert_allclose(
        out.accept_prob_BN[b, :size], plain.accept_prob, rtol=rtol, atol=1e-7, equal_nan=True
    )
    assert all(math.isnan(p) for p in out.accept_prob_BN[b, size:])
