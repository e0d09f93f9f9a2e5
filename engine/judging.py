"""Verdicts by the compiled twins of `cuda_ext`, tree by tree, on the host.

The same verdicts as the rules of verify.py and verify_paths.py give; `device_judging.py` has them
judged on a GPU.
"""

from __future__ import annotations

import numpy as np

from cuda_ext.accept import Scratch, Settings, accept
from cuda_ext.arrays import (
    GREEDY,
    MULTI_STEP,
    RULES,
    WITHOUT_REPLACEMENT,
    Draws,
    Trees,
    Verdicts,
    new_stats,
    new_verdicts,
)
from cuda_ext.uniforms import keyed_uniforms
from engine.drafters.base import Sequence
from engine.records import Origin, Verdict
from engine.sampling import Sampling, Stream
from engine.tree import TokenTree
from engine.verify_paths import Typical

_NO_TABLE = np.zeros((0, 0))
_NO_UNIFORMS = np.zeros((1, 0, 2))
_FIRST = np.zeros(1, np.int32)
_NO_STATS = new_stats(1, 1)


def settings_for(rule: str, sampling: Sampling, typical: Typical) -> Settings | None:
    """The rule as kernels take it; None where none of them has it."""
    number = GREEDY if sampling.greedy else RULES.get(rule)
    if number is None:
        return None
    scale = 1.0 if sampling.greedy else 1.0 / sampling.temperature
    return Settings(number, scale, *typical)


def is_drawn(settings: Settings) -> bool:
    """Whether the rule takes the laws that children were drawn from."""
    return settings.rule in (MULTI_STEP, WITHOUT_REPLACEMENT)


def uniforms_of(num_nodes: int, sampling: Sampling, sequence: Sequence) -> np.ndarray:
    """Uniforms (N, 2) of a tree's acceptance and emission, as the rules in Python draw them."""
    root = sequence.position
    out_N2 = np.empty((num_nodes, 2))
    keyed_uniforms(
        np.uint64(sampling.seed & (2**64 - 1)), np.uint64(sequence.noise.request),
        np.uint64(root << 32), np.uint64(root), np.uint64(Stream.ACCEPT), out_N2.reshape(-1),
    )  # fmt: skip
    return out_N2


def noise_rows(tree: TokenTree, sequence: Sequence) -> np.ndarray:
    """The row of the request's noise table for each node (N)."""
    depth_N = tree.depth_M[: tree.num_nodes]
    rows_D = [sequence.noise.row(sequence.position + d) for d in range(int(depth_N.max()) + 1)]
    # once more: had the table grown on the way, earlier rows would have moved
    rows_D = [sequence.noise.row(sequence.position + d) for d in range(len(rows_D))]
    return np.asarray(rows_D, np.int32)[depth_N]


def draft_rows(tree: TokenTree) -> tuple[list[np.ndarray], np.ndarray]:
    """Laws that children were drawn from, and the number among them for each node, -1: none."""
    row_N = np.full(tree.num_nodes, -1, np.int32)
    laws: list[np.ndarray] = []
    for node, law_V in tree.draft_probs.items():
        if node < tree.num_nodes:
            row_N[node] = len(laws)
            laws.append(law_V)
    return laws, row_N


def judge(
    settings: Settings,
    tree: TokenTree,
    logits_NV: np.ndarray,
    *,
    sampling: Sampling,
    sequence: Sequence,
) -> Verdict:
    """The verdict on one tree whose logits are on the host, float32 or log-probabilities."""
    num_nodes = tree.num_nodes
    rows_1N = np.zeros((1, num_nodes), np.int32)
    noise_RV, uniforms_1N2, draft_RV, draft_1N = _NO_TABLE, _NO_UNIFORMS, _NO_TABLE, rows_1N
    residual_1V = _NO_TABLE
    if is_drawn(settings):
        uniforms_1N2 = uniforms_of(num_nodes, sampling, sequence)[None]
        laws, row_N = draft_rows(tree)
        draft_RV, draft_1N = np.stack(laws) if laws else _NO_TABLE, row_N[None]
        residual_1V = np.empty((1, logits_NV.shape[1]))
    elif settings.rule != GREEDY:
        rows_1N = noise_rows(tree, sequence)[None]
        noise_RV = sequence.noise.table_DV
    out = new_verdicts(1, num_nodes)
    accept(
        settings,
        Trees(
            tree.tokens_M[None, :num_nodes],
            tree.parents_M[None, :num_nodes],
            np.array([num_nodes], np.int32),
            _FIRST,
        ),
        logits_NV,
        draws=Draws(noise_RV, rows_1N, uniforms_1N2, draft_RV, draft_1N),
        stats=_NO_STATS,
        scratch=Scratch(residual_1V, _NO_TABLE),
        out=out,
        how="twin",
    )
    return verdict_of(out, 0, num_nodes)


def verdict_of(out: Verdicts, b: int, num_nodes: int) -> Verdict:
    """Row b of a batch of verdicts."""
    length = int(out.path_len_B[b])
    return Verdict(
        out.path_BN[b, :length].tolist(),
        int(out.next_token_B[b]),
        Origin(int(out.origin_B[b])),
        out.fate_BN[b, :num_nodes].copy(),
        out.accept_prob_BN[b, :num_nodes].copy(),
    )
