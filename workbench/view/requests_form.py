"""From the form of the Requests page to a load spec, and what it comes to.

No method is imported here: the worker checks options, so the page opens without an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from workbench.loading.spec import LoadSpec
from workbench.view.compare_form import duration
from workbench.view.requests_words import AUCTIONEER, auctioned, plural

ARRIVAL_LABELS = {
    "poisson": "Poisson",
    "bursty": "Bursty",
    "on-off": "On and off",
    "closed": "Closed loop",
    "trace": "Trace",
}
BUDGET_LABELS = {
    "auction": "Auction",
    "own": "As the method drafts",
    "fixed": "Fixed",
    "proportional": "Proportional",
    "round-robin": "Round robin",
}
POLICY_LABELS = {
    "first-come": "First come, first served",
    "shortest-first": "Shortest first",
    "deadline": "Earliest deadline first",
    "fair": "Clients in turn",
}
ROUTER_LABELS = {
    "predicted": "Predicted to finish first",
    "shortest-queue": "Shortest queue",
    "round-robin": "In turn",
}
#: fields that a form holds as text; empty ones are left out
_OPTIONAL = ("deadline_s", "timeout_s", "trace")


def build_load(fields: Mapping[str, Any], *, auctions: bool = False) -> LoadSpec:
    """A checked spec; `nodes` goes with budgets that have a number of them.

    `auctions` says that the method has a policy that holds the auction; it is taken where an
    auction is wanted and no other policy was chosen. Raises UserError with a sentence for people.
    """
    values = dict(fields)
    for role in ("target", "draft"):
        if values.get(role) is not None and not str(values[role]).strip():
            raise UserError(f"The {role} model is empty; give a local folder or a hub id.")
    nodes, budgets = values.pop("nodes", None), values["budgets"]
    if budgets == "auction" and auctions:
        values["options"] = {"policy": AUCTIONEER} | (values.get("options") or {})
    elif budgets == "own":
        values["budgets"] = "auction"  # no budget is set
    elif budgets != "auction":
        values["budgets"] = f"{budgets}:{nodes}"
    for name in _OPTIONAL:
        if not values.get(name):
            values.pop(name, None)
    if values["arrivals"] != "trace":
        values.pop("trace", None)
    elif "trace" not in values:
        raise UserError("The trace is empty; give the path of a JSONL or CSV file of arrivals.")
    try:
        return LoadSpec(**values)
    except ValidationError as error:
        raise UserError(_sentence(error)) from error


def auction_note(fields: Mapping[str, Any], spec: LoadSpec) -> str:
    """Who holds the auction that was asked for, or that nobody does; empty for other budgets."""
    if fields["budgets"] != "auction":
        return ""
    if auctioned(spec.model_dump()):
        return f"The auction is held by the policy {AUCTIONEER} of {spec.method}."
    policy = spec.options.get("policy")
    who = f"The policy {policy}" if policy else spec.method
    return f"{who} holds no auction: each request is drafted for as if it were alone."


def cost(spec: LoadSpec) -> str:
    """What will come, in words."""
    if spec.arrivals == "trace":
        return f"As the trace has them, served by {_servers(spec)}."
    many = plural(spec.requests, "request") if spec.requests else "Requests"
    each = f"{many} of at most {spec.max_new_tokens} tokens"
    if spec.replicas > 1:
        each += f" for {_servers(spec)}"
    if spec.arrivals == "closed":
        return f"{each}; {plural(spec.clients, 'client')} ask again when they are answered."
    span = spec.duration_s or (spec.requests or 0) / spec.rate
    long = f"{span:.0f} s" if span < 90 else duration(span)
    return f"{each}, coming over {long.removeprefix('about ')} or so."


def _servers(spec: LoadSpec) -> str:
    slots = plural(spec.slots, "slot")
    return slots if spec.replicas == 1 else f"{plural(spec.replicas, 'replica')} of {slots} each"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{reason[0].upper()}{reason[1:]}."
    name = str(first["loc"][0]).removesuffix("_s").replace("_", " ").capitalize()
    return f"{name} is {first['input']!r}; it takes {reason}."
