"""JSON files that people write, or that are kept: read with a sentence for what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

#: what people write is small; anything larger is the wrong file
_MOST_BYTES = 1 << 20


def read_object(file: Path, what: str) -> dict[str, Any]:
    """The object in a file that holds `what` ("a spec"). Raises UserError naming the file."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    return parse_object(raw, where=str(file), what=what)


def parse_object(raw: bytes, *, where: str, what: str) -> dict[str, Any]:
    """The object in a file's bytes. Raises UserError; its sentence begins with `where`."""
    if len(raw) > _MOST_BYTES:
        raise UserError(f"{where} has {len(raw) / 1e6:.1f} MB; {what} is a small JSON file.")
    try:
        values = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON that can be read: {error}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{where} holds a {type(values).__name__}; {what} is one JSON object.")
    return values


def reason_of(error: ErrorDetails) -> str:
    """What pydantic wants of a value, as the end of "use ..."."""
    return error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def wrong_field(error: ValidationError, where: str) -> UserError:
    """Of a file's first wrong field: its name, its value, what to use."""
    first = error.errors()[0]
    if not first["loc"]:
        return UserError(f"{where}: {reason_of(first)}.")
    field = ".".join(map(str, first["loc"]))
    value = repr(first["input"])[:80]
    return UserError(f"{where}: {field} is {value}; use {reason_of(first)}.")


def write_text(file: Path, text: str, what: str) -> Path:
    """Write a text file. Raises UserError that begins with `what` ("The spec")."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{what} cannot be written to {file}: {reason}.") from None
    return file


def write_whole(file: Path, values: dict[str, Any], what: str) -> Path:
    """Write an object, whole or not at all, in a folder that is made. Raises UserError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise UserError(f"{what} cannot be written to {file}: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return file
