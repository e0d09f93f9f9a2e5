"""The command line that does a load run again."""

from __future__ import annotations

import shlex
from typing import Any

from workbench.loading.spec import LoadSpec

#: field -> flag, where the flag is not the field's name with dashes
FLAGS = {
    "on_s": "on",
    "off_s": "off",
    "think_s": "think",
    "duration_s": "duration",
    "cancel_after_s": "cancel-after",
    "deadline_s": "deadline",
    "timeout_s": "timeout",
    "pairs": "pair",
    "options": "option",
}
#: fields that `draftree load` has no flag for: a spec file holds them
SPEC_ONLY = ("prompt", "typical_epsilon", "typical_alpha", "kernels")
#: given by the circumstances of a run, or by another field
_NOT_FLAGS = {"comparison", "arm", "batch", "repeats", "cache", *SPEC_ONLY}
_SWITCHED_OFF = ("chat_template",)


def load_command(spec: LoadSpec) -> str:
    """`draftree load ...` with every setting that is not the default."""
    words = ["draftree", "load"]
    values = {k: v for k, v in spec.model_dump(mode="json").items() if k not in _NOT_FLAGS}
    if spec.trace is not None:
        del values["arrivals"]
    if spec.pairs or spec.other_drafts:
        drafts = [] if spec.pairs else spec.drafts
        words += [word for name in drafts for word in ("--draft", name)]
        values = {k: v for k, v in values.items() if k not in ("draft", "other_drafts")}
        if spec.pairs:
            del values["target"]
    for name, value in values.items():
        if value is not None and value != _usual(name):
            words += _flag(name, value)
    return shlex.join(words)


def _usual(name: str) -> Any:
    return LoadSpec.model_fields[name].get_default(call_default_factory=True)


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{FLAGS.get(name, name).replace('_', '-')}"
    if name == "pairs":
        shown = [
            f"{one['name']}={','.join(filter(None, (one['target'], one['draft'])))}"
            for one in value
        ]
        return [word for text in shown for word in (flag, text)]
    if name == "options":
        return [word for key, one in value.items() for word in (flag, f"{key}={one}")]
    if name == "stop":
        return [word for text in value for word in (flag, text)]
    if name == "slo":
        return [flag, ",".join(f"{key}={limit:g}" for key, limit in value.items())]
    if name == "weights":
        return [flag, ",".join(f"{weight:g}" for weight in value)]
    if isinstance(value, bool):
        return [f"--no-{flag.removeprefix('--')}" if name in _SWITCHED_OFF else flag]
    return [flag, str(value)]
