"""A load run, or the lanes of several ranks, in a sentence and in figures with what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.loading.metrics import LoadMetrics, load_metrics
from workbench.view.headline import UNKNOWN
from workbench.view.requests import Served
from workbench.view.runs_frame import models_text, options_text
from workbench.view.visible import safe_text

#: the policy under which nodes of all requests compete
AUCTIONEER = "auto"
#: what became of requests that did not complete: field of `LoadMetrics`, words
_OTHERS = {
    "cancelled": "cancelled",
    "timed_out": "timed out",
    "refused": "refused",
    "lost": "lost",
    "unended": "never ended",
}


def metrics_of(served: Served, spec: Mapping[str, Any]) -> LoadMetrics:
    """All figures of the run, by the definitions of docs/load.md."""
    history = served.history
    return load_metrics(
        history.arrivals,
        history.ticks,
        history.shares,
        slo=spec.get("slo") or {},
        slots=sum(served.slots(group) for group in served.groups),
    )


def head(served: Served, spec: Mapping[str, Any], *, message: str = "") -> dict[str, Any]:
    """`state`, a sentence; `detail` and `setup`, lines below it; `figures`."""
    if served.history.has_requests:
        told = metrics_of(served, spec)
        state, figures = load_state(told), load_figures(told)
    else:
        ranks = len({lane["rank"] for lane in served.lanes.names()})
        state = f"{plural(served.num_moments, 'step')} on {plural(ranks, 'rank')}"
        figures = []
    return {
        "state": state,
        "detail": safe_text(message),
        "setup": setup(spec),
        "figures": figures,
    }


def setup(spec: Mapping[str, Any]) -> str:
    """Method, models, and how requests come and are served, in a line."""
    spec = dict(spec)
    parts = [str(spec.get("method") or ""), options_text(spec), models_text(spec)]
    if "arrivals" in spec:
        parts += [arrivals_told(spec), plural(int(spec.get("slots") or 0), "slot")]
        parts += [str(spec.get("policy") or ""), budgets_told(spec)]
    return " · ".join(safe_text(part) for part in parts if part)


def arrivals_told(spec: Mapping[str, Any]) -> str:
    """How requests come: `Poisson at 2 per second`, `closed loop of 8 clients`."""
    kind, rate = spec.get("arrivals"), spec.get("rate") or 0.0
    if kind == "closed":
        return f"closed loop of {plural(int(spec.get('clients') or 1), 'client')}"
    if kind == "trace":
        return f"trace {spec.get('trace') or ''}".strip()
    name = {"poisson": "Poisson", "on-off": "on and off"}.get(str(kind), str(kind))
    return f"{name} at {rate:g} per second"


def auctioned(spec: Mapping[str, Any]) -> bool:
    """Whether the nodes of a step went to the requests of which most was expected."""
    policy = (spec.get("options") or {}).get("policy")
    return spec.get("budgets") == "auction" and policy == AUCTIONEER


def budgets_told(spec: Mapping[str, Any]) -> str:
    """`nodes by auction`, `fixed budgets of 8 nodes`; empty where the method drafts as alone."""
    kind, _, nodes = str(spec.get("budgets") or "").partition(":")
    if nodes:
        return f"{kind.replace('-', ' ')} budgets of {nodes} nodes"
    return "nodes by auction" if auctioned(spec) else ""


def load_state(told: LoadMetrics) -> str:
    """What became of the requests: `51 of 60 requests served, 4 cancelled, in 2.5 s`."""
    parts = [f"{told.completed} of {plural(told.requests, 'request')} served"]
    counts = {word: getattr(told, name) for name, word in _OTHERS.items()}
    parts += [f"{number} {word}" for word, number in counts.items() if number]
    return f"{', '.join(parts)} in {told.duration_s:.1f} s"


def load_figures(told: LoadMetrics) -> list[dict[str, str]]:
    """The lead figures of a load run, each with its definition."""
    ttft, e2el = told.latencies.get("ttft"), told.latencies.get("e2el")
    figures = [
        figure(
            f"{told.output_throughput:.0f}",
            "tokens per second",
            "output_throughput: tokens kept of all requests, by the time from the first arrival to "
            "the last end.",
        ),
        figure(
            f"{told.request_throughput:.2f}",
            "requests per second",
            "Requests that completed, by the same time.",
        ),
        figure(
            UNKNOWN if ttft is None else time_told(ttft.median),
            "to the first token",
            "ttft, the median: from arrival to the end of the step that brought the first token.",
        ),
        figure(
            UNKNOWN if e2el is None else time_told(e2el.p90),
            "whole answer, p90",
            "e2el: nine of ten requests that completed took no longer from arrival to the end.",
        ),
    ]
    if told.request_goodput is not None:
        bounds = ", ".join(f"{name} {ms:g} ms" for name, ms in told.slo.items())
        figures.append(
            figure(
                f"{told.request_goodput:.2f}",
                "good requests per second",
                f"request_goodput: requests that completed within {bounds}, by the same time.",
            )
        )
    if told.deadlines_met is not None:
        figures.append(
            figure(
                f"{100 * told.deadlines_met:.0f} %",
                "of deadlines met",
                "Of the requests that came with a deadline, those that completed before it.",
            )
        )
    return figures


def time_told(ms: float) -> str:
    """A latency as it is read."""
    if ms < 10:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def figure(value: str, label: str, help: str) -> dict[str, str]:
    """One figure of the head."""
    return {"value": value, "label": label, "help": help}


def plural(number: int, word: str) -> str:
    """`1 step`, `1,204 steps`."""
    return f"1 {word}" if number == 1 else f"{number:,} {word}s"
