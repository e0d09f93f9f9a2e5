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
from workbench.view.requests_words import plural

ARRIVAL_LABELS = {
    "poisson": "Poisson",
    "bursty": "Bursty",
    "on-off": "On and off",
    "closed": "Closed loop",
    "trace": "Trace",
}
BUDGET_LABELS = {
    "auction": "Auction",
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
#: fields that a form holds as text; empty ones are left out
_OPTIONAL = ("deadline_s", "timeout_s", "trace")


def build_load(fields: Mapping[str, Any]) -> LoadSpec:
    """A checked spec; `nodes` goes with budgets other than the auction.

    Raises UserError with a sentence for people.
    """
    values = dict(fields)
    for role in ("target", "draft"):
        if values.get(role) is not None and not str(values[role]).strip():
            raise UserError(f"The {role} model is empty; give a local folder or a hub id.")
    nodes = values.pop("nodes", None)
    if values["budgets"] != "auction":
        values["budgets"] = f"{values['budgets']}:{nodes}"
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


def cost(spec: LoadSpec) -> str:
    """What will come, in words."""
    if spec.arrivals == "trace":
        return f"As the trace has them, served by {plural(spec.slots, 'slot')}."
    many = plural(spec.requests, "request") if spec.requests else "Requests"
    each = f"{many} of at most {spec.max_new_tokens} tokens"
    if spec.arrivals == "closed":
        return f"{each}; {plural(spec.clients, 'client')} ask again when they are answered."
    span = spec.duration_s or (spec.requests or 0) / spec.rate
    long = f"{span:.0f} s" if span < 90 else duration(span)
    return f"{each}, coming over {long.removeprefix('about ')} or so."


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{reason[0].upper()}{reason[1:]}."
    name = str(first["loc"][0]).removesuffix("_s").replace("_", " ").capitalize()
    return f"{name} is {first['input']!r}; it takes {reason}."
