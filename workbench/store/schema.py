"""Tables of a run's DuckDB file. One file per run, one writer, no keys and no indexes.

Flat rows, words instead of codes, so that a query reads like a sentence. Unknown values are NULL.
`repeat` tells the passes over the workload apart where a run decodes it several times; times are
nanoseconds; log-probabilities are natural.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from engine.records import Fate, Origin, StageTimes
from engine.tree import Source

#: 2: what a step was expected to bring, and which of several drafts have a node. 3: how requests
#: were served, and what each rank did when. Columns and tables are only ever added, at the end
SCHEMA_VERSION = 3

#: columns by table, in the order in which they are inserted
TABLES: dict[str, dict[str, str]] = {
    "schema_version": {"version": "INTEGER"},
    "run": {
        "run": "VARCHAR",
        "status": "VARCHAR",
        "started": "VARCHAR",  # ISO 8601, UTC
        "finished": "VARCHAR",
        "mode": "VARCHAR",
        "plain_step_ns": "BIGINT",
        "message": "VARCHAR",
        "spec": "VARCHAR",  # JSON
        "environment": "VARCHAR",  # JSON
        "summary": "VARCHAR",  # JSON
    },
    "request": {
        "run": "VARCHAR",
        "request": "INTEGER",
        "repeat": "INTEGER",
        "question_id": "VARCHAR",
        "category": "VARCHAR",
        "turn": "INTEGER",
        "prompt": "VARCHAR",
        "num_prompt": "INTEGER",
        "text": "VARCHAR",
        "finish_reason": "VARCHAR",  # NULL: never finished
        "num_steps": "INTEGER",
        "num_emitted": "INTEGER",
        "num_kept": "INTEGER",
        "num_drafted": "INTEGER",
        "num_accepted": "INTEGER",
        "prefill_ns": "BIGINT",
        "decode_ns": "BIGINT",
        "repetition": "DOUBLE",
    },
    "step": {
        "run": "VARCHAR",
        "request": "INTEGER",
        "repeat": "INTEGER",
        "step": "INTEGER",
        "position": "INTEGER",
        "num_drafted": "INTEGER",
        "num_accepted": "INTEGER",
        "num_emitted": "INTEGER",
        "num_kept": "INTEGER",
        "next_token": "BIGINT",
        "origin": "VARCHAR",  # of next_token
        "children": "VARCHAR",
        "draft_passes": "INTEGER",
        "budget": "INTEGER",
        "batch": "INTEGER",
        "batch_step": "INTEGER",
        "time_ns": "BIGINT",
        **{f"{stage}_ns": "BIGINT" for stage in StageTimes._fields},
        "wall_ns": "BIGINT",
        "expected_tokens": "DOUBLE",  # NULL where the drafter expected nothing
        "expected_ms": "DOUBLE",
    },
    "node": {
        "run": "VARCHAR",
        "request": "INTEGER",
        "repeat": "INTEGER",
        "step": "INTEGER",
        "node": "INTEGER",
        "parent": "INTEGER",
        "depth": "INTEGER",
        "rank": "INTEGER",
        "token": "BIGINT",
        "source": "VARCHAR",
        "round_added": "SMALLINT",
        "round_pruned": "SMALLINT",
        "draft_logprob": "FLOAT",
        "calibrated_prob": "FLOAT",
        "target_logprob": "FLOAT",
        "accept_prob": "FLOAT",
        "fate": "VARCHAR",
        "drafts": "VARCHAR",  # of several draft models, those that have it: 1, 2, 1+2; else NULL
    },
    "token": {
        "run": "VARCHAR",
        "request": "INTEGER",
        "repeat": "INTEGER",
        "position": "INTEGER",
        "step": "INTEGER",
        "token": "BIGINT",
        "text": "VARCHAR",  # what it adds to the output; empty inside a character
        "kept": "BOOLEAN",
        "origin": "VARCHAR",
        "draft_rank": "INTEGER",
        "draft_logprob": "FLOAT",
        "target_logprob": "FLOAT",
        "top2_gap": "FLOAT",
    },
    # each token that occurs, for the eye: `·` for a space, `\\n` for a line break
    "piece": {"token": "BIGINT", "text": "VARCHAR"},
    # the rest is of runs that serve requests as they come (engine/serving/trace.py has the words),
    # and `lane` of those on several ranks; times are on the scheduler's clock
    "arrival": {
        "run": "VARCHAR",
        "request": "INTEGER",
        "client": "VARCHAR",
        "pair": "VARCHAR",
        "replica": "INTEGER",
        "arrival_ns": "BIGINT",
        "num_prompt": "INTEGER",
        "max_new_tokens": "INTEGER",
        "deadline_ns": "BIGINT",
        "timeout_ns": "BIGINT",
        "slot": "INTEGER",
        "admitted_ns": "BIGINT",
        "prefilled_ns": "BIGINT",
        "first_token_ns": "BIGINT",
        "ended_ns": "BIGINT",
        "num_kept": "INTEGER",
        "reason": "VARCHAR",  # NULL: never ended
        "message": "VARCHAR",
        "attempts": "INTEGER",
    },
    "tick": {
        "run": "VARCHAR",
        "tick": "INTEGER",
        "pair": "VARCHAR",
        "replica": "INTEGER",
        "begin_ns": "BIGINT",
        "end_ns": "BIGINT",
        "waiting": "INTEGER",
        "active": "INTEGER",
        "budget": "INTEGER",
        "nodes": "INTEGER",
        "draft_passes": "INTEGER",
        "draft_ns": "BIGINT",
        "score_ns": "BIGINT",
        "verify_ns": "BIGINT",
        "commit_ns": "BIGINT",
        "rest_ns": "BIGINT",
    },
    "share": {
        "run": "VARCHAR",
        "tick": "INTEGER",
        "replica": "INTEGER",
        "request": "INTEGER",
        "slot": "INTEGER",
        "nodes": "INTEGER",
        "depth": "INTEGER",
        "bid": "DOUBLE",
        "accepted": "INTEGER",
        "kept": "INTEGER",
    },
    "lane": {
        "run": "VARCHAR",
        "rank": "INTEGER",
        "lane": "VARCHAR",
        "what": "VARCHAR",
        "step": "INTEGER",
        "begin_ns": "BIGINT",
        "end_ns": "BIGINT",
    },
}


class RunStatus(StrEnum):
    """How a run stands. `interrupted` is read where a running run's process is gone."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


#: stored words by code
FATE_NAMES = {fate: fate.name.lower() for fate in Fate}
ORIGIN_NAMES = {origin: origin.name.lower() for origin in Origin}
SOURCE_NAMES = {source: source.name.lower() for source in Source}


def words(names: dict, codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes as indices into a list of words, for an Arrow dictionary column."""
    values = [names.get(code, "") for code in range(max(names) + 1)]
    return codes.astype(np.int8), values


def codes(names: dict, column: np.ndarray) -> np.ndarray:
    """The way back from words to codes."""
    by_word = {word: int(code) for code, word in names.items()}
    return np.array([by_word[word] for word in column], np.uint8)


def create_statements() -> list[str]:
    """SQL that makes all tables."""
    return [
        f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in columns.items())})"
        for name, columns in TABLES.items()
    ]
