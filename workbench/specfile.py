"""Run specs as files: what `draftree run --spec` reads, `--save-spec` and `draftree tune` write.

A file is one JSON object with fields of `RunSpec`. It may leave fields out; those have their
defaults.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from workbench.jsonfiles import parse_object, read_object, write_text, wrong_field
from workbench.spec import RunSpec

#: given by the circumstances of a run, not part of what is asked for
_NOT_ASKED = ("comparison", "arm")
_SOURCES = ("prompt", "workload")


def spec_text(spec: RunSpec) -> str:
    """A spec as it stands in a file: every field that is not the default, and the method."""
    return text_of(spec, leave=_NOT_ASKED, always=("method", "options", "target", "draft"))


def text_of(spec: RunSpec, *, leave: Collection[str], always: Collection[str]) -> str:
    """Fields of a run's or a load's spec as JSON: those `always` there, and what is not usual."""
    values = spec.model_dump(mode="json", exclude=set(leave))
    fields = type(spec).model_fields
    usual = {name: info.get_default(call_default_factory=True) for name, info in fields.items()}
    kept = {name: v for name, v in values.items() if name in always or v != usual[name]}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


def write_spec(spec: RunSpec, file: Path) -> Path:
    """Write a spec as JSON. Raises UserError where that cannot be done."""
    return write_text(file, spec_text(spec), "The spec")


def read_spec(file: Path) -> dict[str, Any]:
    """The checked fields that a file gives. Raises UserError naming the file and the field."""
    return _checked(read_object(file, "a spec"), str(file))


def parse_spec(raw: bytes, *, where: str) -> dict[str, Any]:
    """The checked fields of a spec as bytes. Raises UserError; its sentence begins with `where`."""
    return _checked(parse_object(raw, where=where, what="a spec"), where)


def merge(
    stored: Mapping[str, Any], values: Mapping[str, Any], over: Collection[str]
) -> dict[str, Any]:
    """Fields of a file, and those of `values` that it leaves open or that are `over` it.

    Options of the method are taken one by one, unless another method was asked for.
    """
    found = dict(values) | {name: v for name, v in stored.items() if name not in over}
    another = found["method"] != stored.get("method", found["method"])
    found["options"] = (
        dict(values["options"]) if another else {**stored.get("options", {}), **values["options"]}
    )
    return found


def merged(
    stored: Mapping[str, Any], values: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """The fields of a run: those of a file, and over them those whose flags were `given`."""
    from engine.registry import METHODS

    over = set(given)
    if "draft" in over:
        over.add("other_drafts")
    if over & set(_SOURCES):
        over |= set(_SOURCES)
        if "prompt" in over and values.get("prompt") is not None:
            over.add("limit")
    found = merge(stored, values, over)
    if not METHODS[found["method"]].needs_draft:
        found = {name: v for name, v in found.items() if name != "other_drafts"} | {"draft": None}
    return found


def as_arm(stored: Mapping[str, Any], where: str) -> str:
    """The arm of a comparison that a spec's method and options are. Raises UserError."""
    from workbench.comparing.expand import arm_text

    if "method" not in stored:
        raise UserError(f"{where}: method is missing; an arm has one.")
    settings = ("verify", "children", "typical_epsilon", "typical_alpha")
    usual = {name: RunSpec.model_fields[name].default for name in settings}
    chosen = {
        name: stored[name] for name in settings if stored.get(name, usual[name]) != usual[name]
    }
    return arm_text(str(stored["method"]), {**stored.get("options", {}), **chosen})


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    from engine.registry import METHODS, parse_options

    values = {name: value for name, value in values.items() if name not in _NOT_ASKED}
    unknown = [name for name in values if name not in RunSpec.model_fields]
    if unknown:
        known = ", ".join(name for name in RunSpec.model_fields if name not in _NOT_ASKED)
        raise UserError(
            f"{where}: {str(unknown[0])[:60]!r} is no field of a spec; there are {known}."
        )
    both = [name for name in _SOURCES if values.get(name) is not None]
    if len(both) == 2:
        raise UserError(f"{where}: prompt and workload exclude each other; keep one of them.")
    try:
        spec = RunSpec.model_validate(values | ({} if both else {"prompt": "-"}))
    except ValidationError as error:
        raise wrong_field(error, where) from None
    try:
        METHODS[spec.method]
        parse_options(spec.method, spec.options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return values
