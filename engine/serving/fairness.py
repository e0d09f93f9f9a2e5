"""Whether clients were served alike: what each got, how long each waited, and a figure for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from engine.serving.trace import ArrivalRow


class ClientShare(NamedTuple):
    """What one client had of a load. Waits are of the requests that were admitted."""

    client: str
    requests: int
    refused: int
    tokens: int
    tokens_per_s: float  # kept tokens by the time during which it had a request there
    wait_mean_s: float  # from arrival to admission; NaN: none was admitted
    wait_p90_s: float
    wait_most_s: float


class Fairness(NamedTuple):
    """`tokens` and `waits` are Jain indices over clients: 1 is alike, 1 / clients is one for all.

    Meaningful where clients ask for much the same. `waits` is over the time per request that each
    spent between arrival and admission, as a rate (1 / (1 + seconds)), so that more is better.
    """

    clients: list[ClientShare]
    tokens: float
    waits: float


def jain(shares: Sequence[float]) -> float:
    """Jain's index of shares, (sum x)^2 / (n sum x^2) (Jain, Chiu and Hawe, 1984).

    1 where all are alike or there is nothing to share.
    """
    x = np.asarray(shares, float)
    squares = float((x * x).sum())
    return float(x.sum() ** 2 / (len(x) * squares)) if squares > 0 else 1.0


def fairness(rows: Iterable[ArrivalRow]) -> Fairness:
    """What clients had, from the last row of each of their requests."""
    by_client: dict[str, list[ArrivalRow]] = {}
    for row in rows:
        by_client.setdefault(row.client, []).append(row)
    clients = [_share(client, theirs) for client, theirs in sorted(by_client.items())]
    waited = [share.wait_mean_s for share in clients if not np.isnan(share.wait_mean_s)]
    return Fairness(
        clients,
        tokens=jain([share.tokens_per_s for share in clients]),
        waits=jain([1.0 / (1.0 + wait) for wait in waited]),
    )


def _share(client: str, rows: Sequence[ArrivalRow]) -> ClientShare:
    tokens = sum(row.num_kept for row in rows)
    there_s = _covered((row.arrival_ns, row.ended_ns) for row in rows if row.ended_ns) * 1e-9
    waits = np.array(
        [(row.admitted_ns - row.arrival_ns) * 1e-9 for row in rows if row.admitted_ns is not None]
    )
    some = len(waits) > 0
    return ClientShare(
        client,
        requests=len(rows),
        refused=sum(row.reason == "refused" for row in rows),
        tokens=tokens,
        tokens_per_s=tokens / there_s if there_s else 0.0,
        wait_mean_s=float(waits.mean()) if some else np.nan,
        wait_p90_s=float(np.quantile(waits, 0.9)) if some else np.nan,
        wait_most_s=float(waits.max()) if some else np.nan,
    )


def _covered(stretches: Iterable[tuple[int, int]]) -> int:
    """How long at least one of them lasted."""
    total, until = 0, -1
    for begin, end in sorted(stretches):
        total += max(end - max(begin, until), 0)
        until = max(until, end)
    return total
