"""A load run under way as the requests view draws it: the last steps, and figures so far.

The payload has the form of a stored run's, but holds a window of steps and is sent whole: what came
before it has left the worker's memory too.
"""

from __future__ import annotations

import threading
from typing import Any

from workbench.loading.latencies import Latency
from workbench.loading.state import Loading
from workbench.view.compare_form import duration
from workbench.view.compare_words import Ended, Told
from workbench.view.headline import UNKNOWN
from workbench.view.requests import CHUNK, Served, history_of
from workbench.view.requests_latency import FIGURES
from workbench.view.requests_words import (
    arrivals_told,
    auctioned,
    figure,
    plural,
    setup,
    time_told,
)
from workbench.view.visible import safe_text

#: steps in the window: one chunk, so that nothing is asked for
WINDOW = CHUNK

_kept: tuple[tuple[str, int], dict[str, Any]] | None = None
_lock = threading.Lock()


def live_payload(loading: Loading) -> dict[str, Any]:
    """What to tell every view of this run now. Made once for each version of the state."""
    global _kept
    key = (loading.run_id, loading.version)
    with _lock:
        if _kept is None or _kept[0] != key:
            _kept = (key, _payload(loading))
        return _kept[1]


def _payload(loading: Loading) -> dict[str, Any]:
    ticks = loading.ticks[-WINDOW:]
    begin = ticks[0].row.begin_ns if loading.num_ticks > len(ticks) else 0
    lanes = [row for row in loading.lanes if row.end_ns > begin]
    arrivals = [
        row for row in [*loading.ended, *loading.live]
        if row.ended_ns is None or row.ended_ns >= begin
    ]  # fmt: skip
    served = Served(history_of(arrivals, ticks, lanes), identity=loading.run_id, since_ns=begin)
    return {
        "id": loading.run_id,
        "live": True,
        "stored": False,
        "start": max(0, served.num_moments - 1),
        "head": live_head(loading),
        "facts": served.facts
        | {
            "before": loading.num_ticks - len(ticks),
            "latency": {name: _latency(loading.latencies.get(name)) for name in FIGURES},
            "auction": loading.spec is not None and auctioned(loading.spec.model_dump()),
        },
        "chunks": {0: served.chunk(0)},
    }


def live_head(loading: Loading) -> dict[str, Any]:
    """State, setup and figures of the run as far as it is."""
    counts = loading.counts
    ttft, e2el = loading.latencies.get("ttft"), loading.latencies.get("e2el")
    given_up = {
        "refused": counts.refused,
        "cancelled": counts.cancelled,
        "timed out": counts.timed_out,
        "lost": counts.lost,
    }
    gone = "".join(f", {number} {word}" for word, number in given_up.items() if number)
    state = f"Serving: {counts.running} in the batch, {counts.waiting} waiting"
    detail = f"{plural(counts.completed, 'request')} served{gone}; {loading.output_tokens:,} tokens"
    spec = loading.spec.model_dump(mode="json") if loading.spec is not None else {}
    rate = loading.output_throughput
    return {
        "state": state,
        "detail": safe_text(detail),
        "setup": setup(spec),
        "figures": [
            figure(f"{rate:.0f}" if rate else UNKNOWN, "tokens per second, of late",
                   "Tokens kept of all requests, by the time of the last steps."),
            figure(str(counts.completed), "served", "Requests that completed so far."),
            figure(UNKNOWN if ttft is None else time_told(ttft.median), "to the first token",
                   "ttft, the median so far, right within 1 %."),
            figure(UNKNOWN if e2el is None else time_told(e2el.p90), "whole answer, p90",
                   "e2el: nine of ten requests that completed so far took no longer."),
        ],
    }  # fmt: skip


def _latency(told: Latency | None) -> dict[str, list[Any]]:
    """Percentiles of the whole run so far, whichever step of the window is looked at."""
    if told is None:
        return {"at": [], "count": [], "ms": []}
    return {"at": [0], "count": [told.count], "ms": [[told.median, told.p90, told.p99]]}


def told(loading: Loading, *, stopping: bool = False) -> Told:
    """How far the run is."""
    spec = loading.spec
    title = "Load run"
    if spec is not None:
        fields = spec.model_dump(mode="json")
        title = f"Load run of {safe_text(spec.method)}: {safe_text(arrivals_told(fields))}"
    fraction = loading.fraction or 0.0
    if stopping:
        return Told(title, "Stopping after this step …", fraction, "")
    if loading.progress is not None:
        return Told(title, safe_text(loading.progress.message), fraction, "")
    if not loading.run_id:
        return Told(title, "Starting the worker …", fraction, "")
    counts = loading.counts
    many = "" if loading.num_requests is None else f" of {loading.num_requests:,}"
    detail = f"{counts.ended:,}{many} requests ended"
    left = f"{fraction:.0%} done" if loading.fraction is not None else ""
    if left and loading.seconds_left is not None:
        left += f", {duration(loading.seconds_left)} left"
    return Told(title, detail, fraction, left)


def ended(loading: Loading) -> Ended | None:
    """How the last one ended; None where it simply finished, or there was none."""
    error = safe_text(loading.error)
    if loading.wrong_input:
        return Ended("error", "The load run was not started", error)
    kept = "What was served until then is kept." if loading.run_id else "Nothing was served yet."
    if loading.status == "cancelled":
        return Ended("info", "", f"Stopped. {kept}")
    if loading.status == "interrupted":
        return Ended("error", "The load run was interrupted", f"{error} {kept}")
    if loading.status == "failed":
        return Ended("error", "The load run failed", error)
    return None
