"""A step from its stored rows, as it was recorded."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.records import Fate, Origin, StageTimes, StepRecord, Verdict
from engine.tree import Children, TokenTree
from workbench.store.schema import FATE_NAMES, ORIGIN_NAMES, SOURCE_NAMES, codes

_ORIGINS = {word: origin for origin, word in ORIGIN_NAMES.items()}


def step_from_rows(step: pd.Series, nodes: pd.DataFrame, tokens: pd.DataFrame) -> StepRecord:
    """A StepRecord from its rows; `draft_probs` is not stored and stays empty."""
    fate_M = codes(FATE_NAMES, nodes["fate"].to_numpy())
    num_nodes = int((fate_M != Fate.PRUNED).sum())
    depth_M = nodes["depth"].to_numpy(np.int32)
    path_A = [0, *np.flatnonzero(fate_M == Fate.ACCEPTED).tolist()]
    tree = TokenTree(
        tokens_M=nodes["token"].to_numpy(np.int64),
        parents_M=nodes["parent"].to_numpy(np.int32),
        depth_M=depth_M,
        rank_M=nodes["rank"].to_numpy(np.int32),
        draft_logprob_M=nodes["draft_logprob"].to_numpy(np.float32),
        source_M=codes(SOURCE_NAMES, nodes["source"].to_numpy()),
        round_added_M=nodes["round_added"].to_numpy(np.int16),
        round_pruned_M=nodes["round_pruned"].to_numpy(np.int16),
        num_nodes=num_nodes,
        children=Children(step["children"]),
        draft_passes=int(step["draft_passes"]),
    )
    verdict = Verdict(
        path_A=sorted(path_A, key=lambda node: int(depth_M[node])),
        next_token=int(step["next_token"]),
        origin=Origin(_ORIGINS[step["origin"]]),
        fate_N=fate_M[:num_nodes],
        accept_prob_N=nodes["accept_prob"].to_numpy(np.float32)[:num_nodes],
    )
    return StepRecord(
        request=int(step["request"]),
        step=int(step["step"]),
        position=int(step["position"]),
        tree=tree,
        verdict=verdict,
        target_logprob_M=nodes["target_logprob"].to_numpy(np.float32),
        emitted=tokens["token"].astype(int).tolist(),
        num_kept=int(step["num_kept"]),
        emitted_logprob=tokens["target_logprob"].to_numpy(np.float32),
        top2_gap=tokens["top2_gap"].to_numpy(np.float32),
        times=StageTimes(*(int(step[f"{stage}_ns"]) for stage in StageTimes._fields)),
        batch=int(step["batch"]),
        batch_step=int(step["batch_step"]),
        time_ns=int(step["time_ns"]),
        budget=int(step["budget"]),
    )
