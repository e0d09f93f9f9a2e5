"""A file of arrivals, one request a line: JSONL, or CSV with a header. Told apart by content.

Fields, all but the first optional: `arrival` (seconds from the start, or dates with times, which
count from the earliest), `prompt` (text) or `question` (id in the workload) or `prompt_tokens` (a
length), `max_new_tokens`, `client`, `pair`, and in seconds after arrival `deadline`, `timeout`,
`cancel`. Names that traces in the wild use are understood as well.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import UserError

_MOST_BYTES = 256 << 20
#: names of other traces (those of Azure's public ones among them) -> ours
_ALSO = {
    "timestamp": "arrival",
    "arrival_s": "arrival",
    "arrived_at": "arrival",
    "question_id": "question",
    "contexttokens": "prompt_tokens",
    "num_prefill_tokens": "prompt_tokens",
    "input_length": "prompt_tokens",
    "generatedtokens": "max_new_tokens",
    "num_decode_tokens": "max_new_tokens",
    "output_length": "max_new_tokens",
    "user": "client",
}
#: seconds of an arrival beyond which it is taken for a moment in history (10 years from 1970)
_A_DATE = 3.15e8
_SECONDS = ("arrival", "deadline", "timeout", "cancel")
_COUNTS = ("prompt_tokens", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a trace. Times in seconds; those after the first count from arrival."""

    arrival: float
    prompt: str | None = None
    question: str | None = None
    prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    client: str | None = None
    pair: str | None = None
    deadline: float | None = None
    timeout: float | None = None
    cancel: float | None = None


_NAMES = tuple(field.name for field in fields(Line))


def read_trace(file: Path) -> list[Line]:
    """The requests of a trace in the order of the file, at least one.

    Raises:
        UserError: not readable, not text, empty, or a line that is wrong; then with its number.
    """
    text = _text(file)
    first = next((line for line in text.splitlines() if line.strip()), "")
    rows = _json_rows(text, file) if first.lstrip().startswith(("{", "[")) else _rows(text, file)
    found = [_line(values, f"{file}, line {number}") for number, values in rows]
    if not found:
        raise UserError(f"{file} has a header and no requests.")
    earliest = min(line.arrival for line in found)
    if earliest > _A_DATE:
        return [replace(line, arrival=line.arrival - earliest) for line in found]
    return found


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST_BYTES:
            size = file.stat().st_size >> 20
            raise UserError(f"{file} has {size} MB; at most {_MOST_BYTES >> 20} are read.")
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    if not raw.strip():
        raise UserError(f"{file} is empty; a trace has a request on each line.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not UTF-8 text; save it as such.") from None


def _json_rows(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}, line {number}: not JSON that can be read: {error}.") from None
        if not isinstance(values, dict):
            raise UserError(f"{file}, line {number}: an object is expected, as in {_EXAMPLE}.")
        yield number, values


def _rows(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            number = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(header, f"{file}, line {number}")
            elif len(cells) != len(header):
                raise UserError(
                    f"{file}, line {number}: {len(cells)} values do not fit {len(header)} columns."
                )
            else:
                yield number, {n: c for n, c in zip(header, cells, strict=True) if c.strip()}
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: not CSV: {error}.") from None


_EXAMPLE = '{"arrival": 0.5, "question": "81", "max_new_tokens": 64}'


def _check_header(header: list[str], where: str) -> None:
    if "arrival" not in map(_name, header):
        raise UserError(
            f"{where}: no column is called arrival; a CSV trace begins with a header such as "
            "arrival,prompt_tokens,max_new_tokens."
        )


def _name(said: str) -> str:
    plain = said.strip().lower()
    return _ALSO.get(plain, plain)


def _line(values: dict[str, Any], where: str) -> Line:
    known: dict[str, Any] = {}
    for said, value in values.items():
        name = _name(str(said))
        if value is None:
            continue
        if name not in _NAMES:
            raise UserError(f"{where}: {str(said)[:40]!r} is no field; there are {_listed()}.")
        if name in known:
            raise UserError(f"{where}: {name} is given twice.")
        known[name] = _value(name, value, where)
    if "arrival" not in known:
        raise UserError(f"{where}: arrival is missing, the second at which the request comes.")
    sources = [name for name in ("prompt", "question") if name in known]
    if len(sources) == 2 or (sources and "prompt_tokens" in known):
        raise UserError(f"{where}: give one of prompt, question and prompt_tokens.")
    return Line(**known)


def _value(name: str, value: Any, where: str) -> Any:
    if name in _SECONDS:
        found = _moment(value) if name == "arrival" else _number(value)
        if found is None or found < 0 or (found == 0 and name == "timeout"):
            least = "more than 0" if name == "timeout" else "0 or more"
            raise UserError(f"{where}: {name} is {_shown(value)}; give seconds, {least}.")
        return found
    if name in _COUNTS:
        found = _number(value)
        if found is None or found < 1 or found != int(found):
            raise UserError(f"{where}: {name} is {_shown(value)}; give a number of tokens.")
        return int(found)
    if isinstance(value, dict | list):
        raise UserError(f"{where}: {name} is {_shown(value)}; give a text.")
    text = str(value) if name == "prompt" else str(value).strip()
    if not text:
        raise UserError(f"{where}: {name} is empty.")
    return text


def _moment(value: Any) -> float | None:
    """Seconds; of a date and time (UTC unless it says otherwise) those since 1970."""
    found = _number(value)
    if found is not None or not isinstance(value, str):
        return found
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _shown(value: Any) -> str:
    return repr(value)[:40]


def _listed() -> str:
    return ", ".join(_NAMES)
