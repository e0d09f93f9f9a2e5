"""From a run spec to what the widgets of the Run page hold, and what they have no place for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.errors import UserError
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, RunSpec
from workbench.view.forms import WORKLOAD_LABELS

#: widgets that are named as the field of a spec that they hold
_ALIKE = (
    "max_new_tokens", "temperature", "top_k", "top_p", "seed", "verify", "children", "dtype",
    "device", "execution", "cache", "typical_epsilon", "typical_alpha", "other_drafts",
    "ranks", "parallel", "placement",
)  # fmt: skip
#: what the widgets can show; a value beyond cannot be taken over
_BOUNDS = {
    "temperature": (0.0, 2.0), "top_k": (0, 100_000), "top_p": (0.01, 1.0), "seed": (0, 2**31),
    "max_new_tokens": (1, 8192), "typical_epsilon": (0.01, 1.0), "typical_alpha": (0.01, 1.0),
}  # fmt: skip


class Taken(NamedTuple):
    """Values by the keys of widgets, and fields that the form has no place for."""

    widgets: dict[str, Any]
    left_out: list[str]


def widgets_of(stored: Mapping[str, Any]) -> Taken:
    """What a spec's fields, checked before, mean to the form; fields left out have their defaults.

    Raises UserError for a value that the form cannot hold.
    """
    from engine.registry import METHODS, describe, parse_options

    spec = RunSpec.model_validate(
        dict(stored) | ({} if stored.get("prompt") or stored.get("workload") else {"prompt": "-"})
    )
    for name, (least, most) in _BOUNDS.items():
        if not least <= getattr(spec, name) <= most:
            raise UserError(
                f"The form takes {name} from {least:g} to {most:g}, and the spec has "
                f"{getattr(spec, name)}; use `draftree run --spec`."
            )
    if spec.draft is None and METHODS[spec.method].needs_draft:
        raise UserError(f"The spec names no draft model, and {spec.method} needs one.")
    options = parse_options(spec.method, spec.options)
    widgets: dict[str, Any] = {"method": spec.method}
    widgets |= {f"{spec.method}/{info.name}": getattr(options, info.name)
                for info in describe(spec.method)}  # fmt: skip
    widgets |= {name: getattr(spec, name) for name in _ALIKE if name in RunSpec.model_fields}
    embedded = spec.target == EMBEDDED_TARGET and spec.draft in (None, EMBEDDED_DRAFT)
    embedded = embedded and not spec.other_drafts
    widgets["pair"] = "Embedded pair" if embedded else "Other models"
    if not embedded:
        widgets |= {"target": spec.target, "draft": spec.draft}
    if stored.get("prompt"):
        widgets |= {"source": "own", "own_prompt": stored["prompt"]}
    elif stored.get("workload") in WORKLOAD_LABELS:
        widgets["source"] = stored["workload"]
    return Taken(widgets, _left_out(spec, stored))


def _left_out(spec: RunSpec, stored: Mapping[str, Any]) -> list[str]:
    usual = RunSpec.model_fields
    placed = {"method", "options", "target", "draft", "prompt", "workload", "limit", *_ALIKE}
    found = [
        name
        for name in stored
        if name not in placed
        and getattr(spec, name) != usual[name].get_default(call_default_factory=True)
    ]
    if spec.workload is not None and spec.workload not in WORKLOAD_LABELS:
        found.insert(0, "workload")
    return found
