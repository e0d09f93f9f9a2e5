"""Requests of a load run as a table, and what each client got: fairness."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.loading import definitions as of
from workbench.loading.latencies import by_client
from workbench.view.requests import MOST_MESSAGE, Served, shown_name
from workbench.view.requests_latency import latencies
from workbench.view.visible import safe_text


def requests_frame(served: Served) -> pd.DataFrame:
    """One line per request in the order of arrival; times in milliseconds, text safe to show.

    `nodes` is the mean of drafted nodes per step; `where` is there if batches are several.
    """
    rows = served.history.arrivals.sort_values(
        ["arrival_ns", "request"], kind="stable", ignore_index=True
    )
    times = latencies(rows)
    shares = served.history.shares.groupby("request").agg(
        steps=("tick", "size"), nodes=("nodes", "mean")
    )
    had = shares.reindex(rows["request"].to_numpy()).reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "request": rows["request"].to_numpy(int) + 1,
            "client": [shown_name(client) for client in rows["client"]],
            "ended": [_word(reason) for reason in rows["reason"]],
            "arrival": rows["arrival_ns"].to_numpy(float) / 1e9,
            "wait": times["queue"],
            "ttft": times["ttft"],
            "tpot": times["tpot"],
            "e2el": times["e2el"],
            "prompt": rows["num_prompt"].to_numpy(int),
            "tokens": rows["num_kept"].to_numpy(int),
            "steps": had["steps"].astype("Int64"),
            "nodes": had["nodes"],
            "deadline": _deadline(rows),
            "message": [safe_text(str(m or ""))[:MOST_MESSAGE] for m in rows["message"]],
        }
    )
    if len(served.groups) > 1:
        frame["where"] = served.labels_of(rows)
    return frame


def clients_frame(served: Served) -> pd.DataFrame:
    """One line per client in the order of their names: what it asked for, got and waited.

    `rate` is the client's tokens by the time that its requests took, over which fairness is taken;
    `share` percent of the tokens of all.
    """
    frame = requests_frame(served)
    own = frame.groupby("client").agg(wait=("wait", "median"), nodes=("nodes", "mean"))
    told = by_client(served.history.arrivals)
    total = max(1, sum(one.tokens for one in told))
    lines = []
    for one in told:
        name = shown_name(one.client)
        lines.append(
            {
                "client": name,
                "requests": one.requests,
                "completed": one.completed,
                "refused": one.refused,
                "tokens": one.tokens,
                "share": 100 * one.tokens / total,
                "rate": one.tokens_per_second,
                "wait": own["wait"].get(name, np.nan),
                "ttft": np.nan if one.ttft_ms is None else one.ttft_ms,
                "e2el": np.nan if one.e2el_ms is None else one.e2el_ms,
                "nodes": own["nodes"].get(name, np.nan),
            }
        )
    return pd.DataFrame(lines)


def fairness(clients: pd.DataFrame) -> float | None:
    """Jain's index over the clients' tokens per second; None for fewer than two."""
    return of.jain(clients["rate"].tolist()) if len(clients) else None


def _deadline(rows: pd.DataFrame) -> list[str]:
    """Met, missed, or empty where there was none."""
    wanted, ended = rows["deadline_ns"].to_numpy(float), rows["ended_ns"].to_numpy(float)
    met = rows["reason"].isin(of.COMPLETED).to_numpy() & (ended <= wanted)
    return np.where(np.isnan(wanted), "", np.where(met, "met", "missed")).tolist()


def _word(reason: object) -> str:
    return safe_text(reason).replace("-", " ") if isinstance(reason, str) else "never"
