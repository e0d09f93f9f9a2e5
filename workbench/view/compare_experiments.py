"""A stored experiment as the values of the Compare form's widgets, and in words."""

from __future__ import annotations

from typing import Any

from workbench.comparing.expand import expand
from workbench.comparing.result import CompareSpec


def widgets_of(spec: CompareSpec) -> dict[str, Any]:
    """What the widgets of the form hold for this comparison, by their keys."""
    return {
        "compare/arms": list(spec.methods),
        "compare/on": list(spec.workloads),
        "compare/limit": spec.limit or 4,
        "compare/tokens": spec.max_new_tokens,
        "compare/repeats": spec.repeats,
        "compare/baselines/False": list(spec.baselines),
        "compare/target": spec.target,
        "compare/draft": spec.draft or "",
        "compare/other_drafts": list(spec.other_drafts),
        "compare/dtypes": list(spec.dtypes),
        "compare/caches": list(spec.caches),
        "compare/execution": spec.executions[0],
        "compare/device": spec.device,
        "compare/temperature": spec.temperature,
    }


def settings_told(spec: CompareSpec) -> str:
    """Number formats and caches, in a few words."""
    on, off = True in spec.caches, False in spec.caches
    caches = "cache on and off" if on and off else "cache" if on else "no cache"
    return f"{', '.join(spec.dtypes)}; {caches}"


def measured_told(spec: CompareSpec) -> str:
    """What it measures, in a sentence."""
    arms = expand(spec.methods)
    return f"{', '.join(arms)} on {' and '.join(spec.workloads)}; {settings_told(spec)}."
