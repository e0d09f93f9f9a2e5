"""Load specs as files: what `draftree load --spec` reads and `--save-spec` writes.

A file is one JSON object with fields of `LoadSpec`. It may leave fields out; those have their
defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from workbench.jsonfiles import read_object, write_text, wrong_field
from workbench.loading.spec import LoadSpec
from workbench.specfile import merge, text_of

#: given by the circumstances of a run, or by another field
_NOT_ASKED = ("comparison", "arm", "batch", "repeats")
_ALWAYS = ("method", "options", "target", "draft", "workload", "arrivals", "slots")


def load_spec_text(spec: LoadSpec) -> str:
    """A spec as it stands in a file: what is not the default, and the fields people look for."""
    return text_of(spec, leave=_NOT_ASKED, always=_ALWAYS)


def write_load_spec(spec: LoadSpec, file: Path) -> Path:
    """Write a spec as JSON. Raises UserError where that cannot be done."""
    return write_text(file, load_spec_text(spec), "The spec")


def read_load_spec(file: Path) -> dict[str, Any]:
    """The checked fields that a file gives. Raises UserError naming the file and the field."""
    found = read_object(file, "a spec")
    values = {name: value for name, value in found.items() if name not in _NOT_ASKED}
    unknown = [name for name in values if name not in LoadSpec.model_fields]
    if unknown:
        known = ", ".join(name for name in LoadSpec.model_fields if name not in _NOT_ASKED)
        raise UserError(
            f"{file}: {unknown[0][:60]!r} is no field of a load spec; there are {known}."
        )
    try:
        LoadSpec.model_validate(values)
    except ValidationError as error:
        raise wrong_field(error, str(file)) from None
    return values


def merged(
    stored: Mapping[str, Any], values: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """The fields of a load: those of a file, and over them those whose flags were `given`."""
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
    return merge(stored, values, over)
