"""Rows of `request`: written when it starts, completed when it ends."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from engine.records import RequestRecord
from engine.requests import Request
from workbench.store.schema import TABLES


def request_index(item: Request | RequestRecord) -> int:
    """Its index in the workload."""
    return item.index if isinstance(item, Request) else item.request


def request_rows(run: str, started: Sequence[Request | RequestRecord]) -> pa.Table:
    """Rows of `request` before anything is known of the outcome."""
    known = {
        "run": [run] * len(started),
        "request": [request_index(r) for r in started],
        "repeat": [r.repeat for r in started],
        "question_id": [r.question_id for r in started],
        "category": [r.category for r in started],
        "turn": [r.turn for r in started],
        "prompt": [r.prompt for r in started],
        "num_prompt": [len(r.prompt_ids) for r in started],
    }
    return pa.table({name: known.get(name, [None] * len(started)) for name in TABLES["request"]})


def update_request(run: duckdb.DuckDBPyConnection, record: RequestRecord) -> None:
    """Fill in the outcome of a request whose row is there."""
    run.execute(
        """UPDATE request SET text = ?, finish_reason = ?, num_steps = ?, num_emitted = ?,
        num_kept = ?, num_drafted = ?, num_accepted = ?, prefill_ns = ?, decode_ns = ?,
        repetition = ? WHERE request = ? AND repeat = ?""",
        [
            record.text,
            str(record.finish_reason),
            record.num_steps,
            record.num_emitted,
            record.num_kept,
            record.num_drafted,
            record.num_accepted,
            record.prefill_ns,
            record.decode_ns,
            record.repetition,
            record.request,
            record.repeat,
        ],
    )
