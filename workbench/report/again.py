"""The command line that does a run or a comparison again."""

from __future__ import annotations

import shlex
from typing import Any

from pydantic import BaseModel

from workbench.comparing.result import CompareSpec
from workbench.loading.again import load_command
from workbench.loading.spec import LoadSpec
from workbench.spec import RunSpec

#: given by the run's circumstances, not by a flag
_NOT_FLAGS = {"comparison", "arm", "options", "stop"}
_COMPARE_FLAGS = {
    "methods": "--methods",
    "baselines": "--baselines",
    "workloads": "--workload",
    "dtypes": "--dtypes",
    "caches": "--cache",
    "executions": "--execution",
}


def compare_command(spec: CompareSpec) -> str:
    """`draftree compare ...` with every setting that is not the default."""
    words = ["draftree", "compare"]
    values = spec.model_dump(mode="json")
    for workload in values.pop("workloads"):
        words += ["--workload", workload]
    if methods := values.pop("methods"):
        words += ["--methods", ",".join(methods)]
    for name in ("baselines", "dtypes", "caches", "executions"):
        value = values.pop(name)
        if value != CompareSpec.model_fields[name].default:
            words += [_COMPARE_FLAGS[name], ",".join(map(_on_off, value)) or "none"]
    return shlex.join(words + _draft_flags(values) + _flags(spec, values))


def run_command(spec: RunSpec) -> str:
    """`draftree run ...`, or `load`, with every setting that is not the default."""
    if isinstance(spec, LoadSpec):
        return load_command(spec)
    words = ["draftree", "run"]
    for name, value in spec.options.items():
        words += ["--option", f"{name}={value}"]
    for text in spec.stop:
        words += ["--stop", text]
    values = {k: v for k, v in spec.model_dump(mode="json").items() if k not in _NOT_FLAGS}
    return shlex.join(words + _draft_flags(values) + _flags(spec, values))


def _draft_flags(values: dict[str, Any]) -> list[str]:
    """`--draft` for each of several draft models, taken out of `values`."""
    others = values.pop("other_drafts")
    if not others:
        return []
    return [word for name in (values.pop("draft"), *others) for word in ("--draft", str(name))]


def _flags(spec: BaseModel, values: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value == type(spec).model_fields[name].default:
            continue
        if name in ("cache", "chat_template"):
            words.append("--no-" + flag.removeprefix("--"))
        elif isinstance(value, bool):
            words.append(flag)
        else:
            words += [flag, str(value)]
    return words


def _on_off(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
