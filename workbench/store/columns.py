"""Step records as Arrow tables, one per DuckDB table. Runs on the writer's thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.records import Fate, Origin, StepRecord
from engine.tree import TokenTree, drafts_text
from workbench.store.schema import FATE_NAMES, ORIGIN_NAMES, SOURCE_NAMES, TABLES, words


class Taken(NamedTuple):
    """A step as it lies in the writer's buffer."""

    record: StepRecord
    repeat: int


def step_table(run: str, taken: Sequence[Taken]) -> pa.Table:
    """Rows of `step`."""
    rows = [
        (
            run,
            r.request,
            repeat,
            r.step,
            r.position,
            r.tree.num_drafted,
            r.verdict.num_accepted,
            len(r.emitted),
            r.num_kept,
            r.verdict.next_token,
            ORIGIN_NAMES[Origin(r.verdict.origin)],
            str(r.tree.children),
            r.tree.draft_passes,
            r.budget,
            r.batch,
            r.batch_step,
            r.time_ns,
            *r.times,
            r.times.wall,
            _known(r.tree.expected_tokens),
            _known(r.tree.expected_ms),
        )
        for r, repeat in taken
    ]
    names = list(TABLES["step"])
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    for name in ("expected_tokens", "expected_ms"):  # may hold nothing but None
        columns[name] = pa.array(columns[name], pa.float64())
    return pa.table(columns)


def node_table(run: str, taken: Sequence[Taken]) -> pa.Table:
    """Rows of `node`, pruned nodes included."""
    sizes = np.array([len(r.tree.tokens_M) for r, _ in taken])
    trees = [r.tree for r, _ in taken]
    fates = [
        _padded(r.verdict.fate_N[: r.tree.num_nodes], size, Fate.PRUNED)
        for (r, _), size in zip(taken, sizes, strict=True)
    ]
    accept = [
        _padded(r.verdict.accept_prob_N[: r.tree.num_nodes], size, np.nan)
        for (r, _), size in zip(taken, sizes, strict=True)
    ]
    target = [
        _padded(r.target_logprob_M, size, np.nan) for (r, _), size in zip(taken, sizes, strict=True)
    ]
    total = int(sizes.sum())
    return pa.table(
        {
            "run": _constant(run, total),
            "request": np.repeat([r.request for r, _ in taken], sizes),
            "repeat": np.repeat([repeat for _, repeat in taken], sizes),
            "step": np.repeat([r.step for r, _ in taken], sizes),
            "node": np.concatenate([np.arange(size) for size in sizes]),
            "parent": np.concatenate([t.parents_M for t in trees]),
            "depth": np.concatenate([t.depth_M for t in trees]),
            "rank": np.concatenate([t.rank_M for t in trees]),
            "token": np.concatenate([t.tokens_M for t in trees]),
            "source": _words(SOURCE_NAMES, np.concatenate([t.source_M for t in trees])),
            "round_added": np.concatenate([t.round_added_M for t in trees]),
            "round_pruned": np.concatenate([t.round_pruned_M for t in trees]),
            "draft_logprob": _floats(np.concatenate([t.draft_logprob_M for t in trees])),
            "calibrated_prob": pa.nulls(total, pa.float32()),
            "target_logprob": _floats(np.concatenate(target)),
            "accept_prob": _floats(np.concatenate(accept)),
            "fate": _words(FATE_NAMES, np.concatenate(fates)),
            "drafts": _drafts(trees),
        }
    )


def token_table(run: str, taken: Sequence[Taken], texts: list[str]) -> pa.Table:
    """Rows of `token`: every emitted one, `kept` false for those that were cut off.

    `texts` holds the text that each of them adds to the output.
    """
    sizes = np.array([len(r.emitted) for r, _ in taken])
    ranks: list[int | None] = []
    logprobs: list[float | None] = []
    origins: list[int] = []
    kept: list[bool] = []
    for r, _ in taken:
        path = r.verdict.path_A[1:]
        ranks += [*r.tree.rank_M[path].tolist(), None]
        logprobs += [*r.tree.draft_logprob_M[path].tolist(), None]
        origins += [Origin.DRAFT] * len(path) + [r.verdict.origin]
        kept += [at < r.num_kept for at in range(len(r.emitted))]
    return pa.table(
        {
            "run": _constant(run, int(sizes.sum())),
            "request": np.repeat([r.request for r, _ in taken], sizes),
            "repeat": np.repeat([repeat for _, repeat in taken], sizes),
            "position": np.concatenate([r.position + np.arange(len(r.emitted)) for r, _ in taken]),
            "step": np.repeat([r.step for r, _ in taken], sizes),
            "token": [token for r, _ in taken for token in r.emitted],
            "text": texts,
            "kept": kept,
            "origin": _words(ORIGIN_NAMES, np.array(origins)),
            "draft_rank": pa.array(ranks, pa.int32()),
            "draft_logprob": pa.array(logprobs, pa.float32()),
            "target_logprob": _floats(np.concatenate([r.emitted_logprob for r, _ in taken])),
            "top2_gap": _floats(np.concatenate([r.top2_gap for r, _ in taken])),
        }
    )


def tokens_in(taken: Sequence[Taken]) -> np.ndarray:
    """Distinct token ids in trees and outputs."""
    parts = [r.tree.tokens_M for r, _ in taken]
    parts += [np.asarray(r.emitted, np.int64) for r, _ in taken]
    return np.unique(np.concatenate(parts))


def _padded(values: np.ndarray, size: int, fill: float) -> np.ndarray:
    out = np.full(size, fill, values.dtype)
    out[: len(values)] = values
    return out


def _known(value: float) -> float | None:
    return None if value != value else value


def _constant(word: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [word])


def _words(names: dict, column: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(*words(names, column))


def _drafts(trees: Sequence[TokenTree]) -> pa.Array:
    """Which of several draft models have each node, in words."""
    masks = np.concatenate(
        [np.zeros(len(t.tokens_M), np.uint8) if t.drafts_M is None else t.drafts_M for t in trees]
    )
    if not masks.any():
        return pa.nulls(len(masks), pa.string())
    return pa.DictionaryArray.from_arrays(
        pa.array(masks, mask=masks == 0), [drafts_text(mask) for mask in range(256)]
    )


def _floats(column: np.ndarray) -> pa.Array:
    """NaN, which means unknown here, becomes NULL: an average over it stays an average."""
    return pa.array(np.asarray(column, np.float32), from_pandas=True)
