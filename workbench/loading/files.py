"""Load specs as files: what `draftree load --spec` reads and `--save-spec` writes.

A file is one JSON object with fields of `LoadSpec`. It may leave fields out; those have their
defaults.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from workbench.loading.spec import LoadSpec

#: given by the circumstances of a run, or by another field
_NOT_ASKED = ("comparison", "arm", "batch", "repeats")
_ALWAYS = ("method", "options", "target", "draft", "workload", "arrivals", "slots")
_MOST_BYTES = 1 << 20


def load_spec_text(spec: LoadSpec) -> str:
    """A spec as it stands in a file: what is not the default, and the fields people look for."""
    values = spec.model_dump(mode="json", exclude=set(_NOT_ASKED))
    fields = LoadSpec.model_fields
    usual = {name: info.get_default(call_default_factory=True) for name, info in fields.items()}
    kept = {name: v for name, v in values.items() if name in _ALWAYS or v != usual[name]}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


def write_load_spec(spec: LoadSpec, file: Path) -> Path:
    """Write a spec as JSON. Raises UserError where that cannot be done."""
    return write_text(file, load_spec_text(spec), "The spec")


def write_text(file: Path, text: str, what: str) -> Path:
    """Write a text file. Raises UserError that begins with `what`."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{what} cannot be written to {file}: {reason}.") from None
    return file


def read_load_spec(file: Path) -> dict[str, Any]:
    """The checked fields that a file gives. Raises UserError naming the file and the field."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    if len(raw) > _MOST_BYTES:
        raise UserError(f"{file} has {len(raw) / 1e6:.1f} MB; a spec is a small JSON file.")
    try:
        values = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON that can be read: {error}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} holds a {type(values).__name__}; a spec is one JSON object.")
    values = {name: value for name, value in values.items() if name not in _NOT_ASKED}
    unknown = [name for name in values if name not in LoadSpec.model_fields]
    if unknown:
        known = ", ".join(name for name in LoadSpec.model_fields if name not in _NOT_ASKED)
        raise UserError(
            f"{file}: {unknown[0][:60]!r} is no field of a load spec; there are {known}."
        )
    try:
        LoadSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if not first["loc"]:
            raise UserError(f"{file}: {reason}.") from None
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {field} is {repr(first['input'])[:80]}; use {reason}.") from None
    return values


def merged(
    stored: Mapping[str, Any], values: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """The fields of a load: those of a file, and over them those whose flags were `given`.

    Options of the method are taken one by one, unless another method was asked for.
    """
    over = set(given)
    if "draft" in over:
        over.add("other_drafts")
    if over & {"target", "draft"}:
        over.add("pairs")
    if over & {"prompt", "workload"}:
        over |= {"prompt", "workload"}
    if over & {"arrivals", "trace"}:
        over |= {"arrivals", "trace"}
    if over & {"requests", "duration_s"}:
        over |= {"requests", "duration_s"}
    found = dict(values) | {name: v for name, v in stored.items() if name not in over}
    another = found["method"] != stored.get("method", found["method"])
    found["options"] = (
        dict(values["options"]) if another else {**stored.get("options", {}), **values["options"]}
    )
    return found
