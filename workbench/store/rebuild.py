"""Steps from their stored rows, as they were recorded: one of them, or many at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.records import Fate, Origin, StageTimes, StepRecord, Verdict
from engine.tree import Children, TokenTree, drafts_mask
from workbench.store.schema import FATE_NAMES, ORIGIN_NAMES, SOURCE_NAMES, codes

_ORIGINS = {word: origin for origin, word in ORIGIN_NAMES.items()}
_NODES = {
    "token": np.int64,
    "parent": np.int32,
    "depth": np.int32,
    "rank": np.int32,
    "round_added": np.int16,
    "round_pruned": np.int16,
    "draft_logprob": np.float32,
    "target_logprob": np.float32,
    "accept_prob": np.float32,
}
_TOKENS = {"token": np.int64, "target_logprob": np.float32, "top2_gap": np.float32}
Columns = Mapping[str, np.ndarray]


def step_from_rows(step: pd.Series, nodes: pd.DataFrame, tokens: pd.DataFrame) -> StepRecord:
    """A StepRecord from its rows; `draft_probs` is not stored and stays empty."""
    return _record(step, node_columns(nodes), token_columns(tokens))


def node_columns(nodes: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows of `node` as arrays of the record's types, words as codes."""
    columns = {name: nodes[name].to_numpy(kind) for name, kind in _NODES.items()}
    columns["fate"] = codes(FATE_NAMES, nodes["fate"].to_numpy())
    columns["source"] = codes(SOURCE_NAMES, nodes["source"].to_numpy())
    columns["drafts"] = _drafts(nodes)
    return columns


def _drafts(nodes: pd.DataFrame) -> np.ndarray:
    """Masks of draft models, 0 with one alone and in files of format 1."""
    if "drafts" not in nodes:
        return np.zeros(len(nodes), np.uint8)
    numbers, words = pd.factorize(nodes["drafts"])  # -1: NULL
    masks = [*map(drafts_mask, words), 0]
    return np.array(masks, np.uint8)[numbers]


def token_columns(tokens: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows of `token` as arrays of the record's types."""
    return {name: tokens[name].to_numpy(kind) for name, kind in _TOKENS.items()}


def records_from_rows(
    steps: pd.DataFrame, nodes: pd.DataFrame, tokens: pd.DataFrame
) -> dict[int, StepRecord]:
    """Many steps of one request by number, each table converted once and then sliced.

    `nodes` come in the order step, node and `tokens` in the order position. Steps without nodes
    are left out: what was not recorded is not invented.
    """
    by_node, by_token = node_columns(nodes), token_columns(tokens)
    node_step, token_step = nodes["step"].to_numpy(), tokens["step"].to_numpy()
    found = {}
    for row in steps.to_dict("records"):
        number = int(row["step"])
        own = rows_of(node_step, number)
        if own.start < own.stop:
            found[number] = _record(
                row, _cut(by_node, own), _cut(by_token, rows_of(token_step, number))
            )
    return found


def rows_of(sorted_steps: np.ndarray, number: int) -> slice:
    """Where the rows of a step lie in a column of step numbers that never falls."""
    first, last = np.searchsorted(sorted_steps, [number, number + 1])
    return slice(int(first), int(last))


def _cut(columns: Columns, rows: slice) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in columns.items()}


def _expected(step: Mapping[Any, Any] | pd.Series, name: str) -> float:
    """NaN where nothing was expected, and in files of format 1."""
    value = step.get(name)
    return float("nan") if value is None or pd.isna(value) else float(value)


def _record(step: Mapping[Any, Any] | pd.Series, nodes: Columns, tokens: Columns) -> StepRecord:
    fate_M, depth_M = nodes["fate"], nodes["depth"]
    num_nodes = int((fate_M != Fate.PRUNED).sum())
    path_A = [0, *np.flatnonzero(fate_M == Fate.ACCEPTED).tolist()]
    tree = TokenTree(
        tokens_M=nodes["token"],
        parents_M=nodes["parent"],
        depth_M=depth_M,
        rank_M=nodes["rank"],
        draft_logprob_M=nodes["draft_logprob"],
        source_M=nodes["source"],
        round_added_M=nodes["round_added"],
        round_pruned_M=nodes["round_pruned"],
        num_nodes=num_nodes,
        children=Children(step["children"]),
        draft_passes=int(step["draft_passes"]),
        drafts_M=nodes["drafts"] if nodes["drafts"].any() else None,
        expected_tokens=_expected(step, "expected_tokens"),
        expected_ms=_expected(step, "expected_ms"),
    )
    verdict = Verdict(
        path_A=sorted(path_A, key=lambda node: int(depth_M[node])),
        next_token=int(step["next_token"]),
        origin=Origin(_ORIGINS[step["origin"]]),
        fate_N=fate_M[:num_nodes],
        accept_prob_N=nodes["accept_prob"][:num_nodes],
    )
    return StepRecord(
        request=int(step["request"]),
        step=int(step["step"]),
        position=int(step["position"]),
        tree=tree,
        verdict=verdict,
        target_logprob_M=nodes["target_logprob"],
        emitted=tokens["token"].tolist(),
        num_kept=int(step["num_kept"]),
        emitted_logprob=tokens["target_logprob"],
        top2_gap=tokens["top2_gap"],
        times=StageTimes(*(int(step[f"{stage}_ns"]) for stage in StageTimes._fields)),
        batch=int(step["batch"]),
        batch_step=int(step["batch_step"]),
        time_ns=int(step["time_ns"]),
        budget=int(step["budget"]),
    )
