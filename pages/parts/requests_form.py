"""The form of a load run: models, method, how requests come, slots and budgets; the rest folded."""

from __future__ import annotations

from typing import Any

import streamlit as st

from engine.errors import UserError
from engine.registry import METHODS, describe, method_names
from pages.parts.busy import other_job
from pages.parts.controls import folded_form
from pages.parts.jobs import start_and_stop, start_job, stop_job
from pages.parts.models import choose_pair
from workbench.jobs import LOAD
from workbench.loading.spec import MOST_SLOTS
from workbench.view.forms import WORKLOAD_LABELS, escape_markdown
from workbench.view.requests_form import (
    ARRIVAL_LABELS,
    BUDGET_LABELS,
    POLICY_LABELS,
    ROUTER_LABELS,
    auction_note,
    build_load,
    cost,
)
from workbench.view.requests_words import AUCTIONEER

_MIX = "A number, uniform:LOW-HIGH or lognormal:MEDIAN:SIGMA."


def load_form(*, active: bool) -> None:
    """Lay out the form and start what was asked for."""
    fields = _common()
    cost_place = st.container()
    pressed, cancelled = start_and_stop(
        "requests", start="Start", icon=":material/play_arrow:", stop="Cancel", kinds=(LOAD,),
        active=active,
    )  # fmt: skip
    other_job(LOAD)
    with st.expander("Clients and lengths", icon=":material/group:"):
        fields |= _requests(fields["arrivals"])
    with st.expander("Queue", icon=":material/hourglass_empty:"):
        fields |= _queue()
    with st.expander("Replicas", icon=":material/dns:"):
        fields |= _replicas()
    fields |= folded_form(fields["method"])
    problem = None
    try:
        with cost_place:
            spec = build_load(fields, auctions=_auctions(fields["method"]))
            said = f"{cost(spec)} {auction_note(fields, spec)}".strip()
            st.caption(escape_markdown(said))
    except UserError as error:
        spec, problem = None, str(error)
        cost_place.caption(f":material/info: {escape_markdown(problem)}")
    if pressed:
        start_job("requests", spec, problem)
        st.rerun()
    if cancelled:
        stop_job("requests")
        st.rerun()


def _auctions(method: str) -> bool:
    """Whether one of the method's policies lets the nodes of all requests compete."""
    return any(
        info.name == "policy" and AUCTIONEER in (info.choices or ()) for info in describe(method)
    )


def _common() -> dict[str, Any]:
    pair = st.container()  # what is said of a pair depends on the method chosen below it
    methods = method_names()
    method = st.selectbox(
        "Method", methods, index=methods.index("dynamic-tree"), key="requests/method",
        persist_state="session",
    )  # fmt: skip
    with pair:
        models = choose_pair(method)
    if not METHODS[method].needs_draft:
        models["draft"] = None
    workload = st.selectbox(
        "Prompts", list(WORKLOAD_LABELS), key="requests/on", accept_new_options=True,
        persist_state="session", format_func=lambda name: WORKLOAD_LABELS.get(name, name),
        help="An embedded workload, or the path of a file of prompts: JSON lines or text.",
    )  # fmt: skip
    arrivals = st.selectbox(
        "Arrivals", list(ARRIVAL_LABELS), key="requests/arrivals", persist_state="session",
        format_func=lambda name: ARRIVAL_LABELS.get(name, name),
        help="Open loop: requests come at a rate, whether or not others are answered. Closed loop: "
        "each client asks again once it is answered.",
    )  # fmt: skip
    fields = models | {"method": method, "workload": workload or "code", "arrivals": arrivals}
    left, right = st.columns(2)
    if arrivals == "closed":
        fields["clients"] = int(left.number_input(
            "Clients", 1, 1024, 8, key="requests/clients-closed", persist_state="session",
            help="Each waits for its answer before it asks again.",
        ))  # fmt: skip
    elif arrivals == "trace":
        fields["trace"] = st.text_input(
            "Trace", key="requests/trace", persist_state="session",
            placeholder="arrivals.jsonl or arrivals.csv", help="docs/load.md has its columns.",
        ).strip()  # fmt: skip
        left, right = st.columns(2)
        fields["trace_speed"] = left.number_input(
            "Times as fast", 0.01, 1000.0, 1.0, key="requests/trace-speed", persist_state="session"
        )
    else:
        fields["rate"] = left.number_input(
            "Per second", 0.01, 10_000.0, 2.0, step=0.5, key="requests/rate",
            persist_state="session", help="Requests per second, on average.",
        )  # fmt: skip
    fields["requests"] = int(right.number_input(
        "Requests", 1, 100_000, 40, step=10, key="requests/number", persist_state="session",
        help="The run ends when the last of them has.",
    ))  # fmt: skip
    fields["slots"] = int(left.number_input(
        "Slots", 1, MOST_SLOTS, 8, key="requests/slots", persist_state="session",
        help="Requests decoded together; others wait.",
    ))  # fmt: skip
    fields["max_new_tokens"] = int(right.number_input(
        "New tokens", 1, 8192, 64, step=32, key="requests/tokens", persist_state="session",
        help="Of each answer at most.",
    ))  # fmt: skip
    budgets = st.selectbox(
        "Budgets", list(BUDGET_LABELS), key="requests/budgets", persist_state="session",
        format_func=lambda name: BUDGET_LABELS.get(name, name),
        help="How the nodes of a step are divided among the requests in the batch. Auction: where "
        "most tokens are expected of them, and none where they cost more than they bring. Fixed: "
        "as many for each. Proportional: a total, by what each accepted of late. Round robin: a "
        "total, one after another.",
    )  # fmt: skip
    fields["budgets"] = budgets
    if budgets not in ("auction", "own"):
        fields["nodes"] = int(st.number_input(
            "Nodes for each" if budgets == "fixed" else "Nodes in all", 0, 4096, 8,
            key="requests/nodes", persist_state="session",
        ))  # fmt: skip
    return fields


def _requests(arrivals: str) -> dict[str, Any]:
    """Who asks, how long prompts and answers are, who gives up."""
    fields: dict[str, Any] = {}
    left, right = st.columns(2)
    if arrivals == "bursty":
        fields["burstiness"] = left.number_input(
            "Burstiness", 0.01, 100.0, 0.25, key="requests/burstiness", persist_state="session",
            help="Shape of the gamma law of gaps: less is burstier, 1 is Poisson.",
        )  # fmt: skip
    if arrivals == "on-off":
        fields["on_s"] = left.number_input(
            "Seconds on", 0.1, 3600.0, 5.0, key="requests/on-s", persist_state="session"
        )
        fields["off_s"] = right.number_input(
            "Seconds off", 0.1, 3600.0, 5.0, key="requests/off-s", persist_state="session"
        )
    if arrivals == "closed":
        fields["think_s"] = left.text_input(
            "Seconds between", "0.001", key="requests/think", persist_state="session",
            help=f"Between an answer and the client's next request. {_MIX}",
        )  # fmt: skip
    elif arrivals != "trace":
        fields["clients"] = int(left.number_input(
            "Clients", 1, 1024, 4, key="requests/clients", persist_state="session",
            help="Who ask, in equal parts. Fairness is shown by client.",
        ))  # fmt: skip
    fields["prompt_tokens"] = st.text_input(
        "Prompt lengths", "workload", key="requests/prompt-tokens", persist_state="session",
        help=f"In tokens. workload: as they are. {_MIX}",
    ).strip()  # fmt: skip
    fields["answer_tokens"] = st.text_input(
        "Answer lengths", "workload", key="requests/answer-tokens", persist_state="session",
        help=f"Their limits in tokens. workload: New tokens for all. {_MIX}",
    ).strip()  # fmt: skip
    given_up = st.slider(
        "Given up by their clients, %", 0, 100, 0, 5, key="requests/given-up",
        persist_state="session", help="Cancelled some time after they came.",
    )  # fmt: skip
    return fields | {"cancel_fraction": given_up / 100}


def _queue() -> dict[str, Any]:
    """Who is next, who is refused, what is wanted when."""
    policy = st.selectbox(
        "Next is", list(POLICY_LABELS), key="requests/policy", persist_state="session",
        format_func=lambda name: POLICY_LABELS.get(name, name),
    )  # fmt: skip
    left, right = st.columns(2)
    waiting = left.number_input(
        "Most waiting", 0, 100_000, 256, key="requests/waiting", persist_state="session",
        help="More are refused.",
    )  # fmt: skip
    timeout = right.number_input(
        "Time limit, s", 0.0, 86_400.0, 0.0, key="requests/timeout", persist_state="session",
        help="A request ends after so long, wherever it is. 0: none.",
    )  # fmt: skip
    deadline = st.text_input(
        "Deadlines, s", key="requests/deadline", persist_state="session", placeholder="none",
        help=f"When the answer is wanted, from its arrival. {_MIX}",
    )  # fmt: skip
    left, right = st.columns(2)
    ttft = left.number_input(
        "Good ttft, ms", 0, 1_000_000, 0, step=100, key="requests/slo-ttft",
        persist_state="session", help="Of a good request at most. 0: any.",
    )  # fmt: skip
    e2el = right.number_input(
        "Good e2el, ms", 0, 1_000_000, 0, step=100, key="requests/slo-e2el",
        persist_state="session", help="Of a good request at most. 0: any.",
    )  # fmt: skip
    bounds = {"ttft": float(ttft), "e2el": float(e2el)}
    return {
        "policy": policy,
        "max_waiting": int(waiting),
        "timeout_s": float(timeout),
        "deadline_s": deadline.strip(),
        "slo": {name: ms for name, ms in bounds.items() if ms},
    }


def _replicas() -> dict[str, Any]:
    """Several engines that share the requests; who gets which; whether lost ones are replaced."""
    left, right = st.columns(2)
    replicas = left.number_input(
        "Engines", 1, 1024, 1, key="requests/replicas", persist_state="session",
        help="Processes of this machine, each with the models and slots of its own. They share its "
        "cores: on a CPU one engine with more slots is faster.",
    )  # fmt: skip
    restarts = right.number_input(
        "Restarts", 0, 1024, 0, key="requests/restarts", persist_state="session",
        disabled=replicas == 1, help="Engines started in place of lost ones. What a lost engine "
        "had is served again elsewhere, with the same tokens.",
    )  # fmt: skip
    router = st.selectbox(
        "A request goes to", list(ROUTER_LABELS), key="requests/router", persist_state="session",
        format_func=lambda name: ROUTER_LABELS.get(name, name), disabled=replicas == 1,
    )  # fmt: skip
    if replicas == 1:
        return {}
    return {"replicas": int(replicas), "router": router, "restarts": int(restarts)}
