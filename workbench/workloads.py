"""Prompts to decode: embedded workloads by name, and files in the forms people already have.

A file's form is told by its content, never by its name: Spec-Bench / MT-bench `question.jsonl`
(`question_id`, `category`, `turns`), HumanEval JSONL (`task_id`, `prompt`), ShareGPT JSON
(`conversations`), one JSON string per line, and otherwise plain text: the whole file is one
prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import UserError
from engine.paths import data_folder

_RECORD_KEYS = ("turns", "conversations", "prompt")
_HUMAN = ("human", "user")
_RECORD_LIKE = re.compile(r'\s*\{.*"(?:turns|conversations|prompt|question_id|task_id)"\s*:')


@dataclass(frozen=True, slots=True)
class Question:
    """One conversation of a workload; most have a single turn."""

    question_id: str
    category: str
    turns: list[str]


class _Place(NamedTuple):
    """Where in a file something stands, for messages."""

    file: Path
    unit: str  # "line" or "entry"
    number: int  # from 1

    def error(self, reason: str) -> UserError:
        return UserError(f"{self.file}, {self.unit} {self.number}: {reason}")


def list_workloads() -> list[str]:
    """Names of the embedded workloads, sorted."""
    return sorted(path.stem for path in (data_folder() / "prompts").glob("*.jsonl"))


def load_workload(name_or_file: str | Path, *, limit: int | None = None) -> list[Question]:
    """Return the questions of an embedded workload or a file, in order, at least one.

    `limit` keeps the first so many. An embedded name wins over a file of that name; `./code` is
    the file.

    Raises:
        UserError: no such workload or file, not readable, not text, empty, or malformed; then
            the line is named with its number.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; use a positive count of questions.")
    file = _find(str(name_or_file))
    questions = _parse(_read(file), file)
    if not questions:
        raise UserError(f"{file} holds no prompt by a human; use a file with at least one.")
    return questions[:limit]


def _find(name: str) -> Path:
    if name in list_workloads():
        return data_folder() / "prompts" / f"{name}.jsonl"
    known = ", ".join(list_workloads()) or "none found"
    hint = f"Use an embedded workload ({known}) or the path of a file."
    try:
        path = Path(name).expanduser()
        if not name.strip():
            raise UserError(f"The workload has no name. {hint}")
        if path.is_dir():
            raise UserError(f"{name} is a folder, not a file of prompts. {hint}")
        if not path.exists():
            raise UserError(f"There is no workload or file named {name!r}. {hint}")
        if not path.is_file():
            raise UserError(f"{name} is not a regular file. {hint}")
    except (OSError, RuntimeError) as error:  # name too long, unreadable folder, no home
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The workload {name[:80]!r} cannot be opened: {reason}. {hint}") from None
    except UserError:
        raise
    except ValueError as error:  # a NUL in the name
        raise UserError(f"The workload name {name[:80]!r} is not a path: {error}. {hint}") from None
    return path


def _read(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    if not raw.removeprefix(b"\xef\xbb\xbf").strip():
        raise UserError(f"{file} is empty; a workload needs at least one prompt.")
    if b"\0" in raw:
        raise UserError(f"{file} is a binary file; a workload is UTF-8 text.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; "
            "save the file as UTF-8 text."
        ) from None


def _parse(text: str, file: Path) -> list[Question]:
    # "\n" only: JSON strings may hold other line separators raw
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    whole = _json_or_none(text)
    if _is_record(whole):  # one record, perhaps over several lines
        return list(_records(iter([(_Place(file, "line", lines[0][0]), whole)])))
    if isinstance(whole, list) and (not whole or any(_is_prompt(entry) for entry in whole)):
        places = (_Place(file, "entry", number) for number in range(1, len(whole) + 1))
        return list(_records(zip(places, whole, strict=True)))
    if _meant_as_records(lines) or _meant_as_strings(lines):
        return list(_records(_json_lines(lines, file)))
    if whole is None and text.lstrip().startswith("[") and '"conversations"' in text:
        raise _broken_json(text, file)
    return [_question(_Place(file, "line", 1), file.stem, "text", [text])]


def _broken_json(text: str, file: Path) -> UserError:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _Place(file, "line", error.lineno).error(f"not valid JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        return UserError(f"{file} is not usable JSON: {error}.")
    raise AssertionError("only called for text that is not JSON")


def _meant_as_records(lines: list[tuple[int, str]]) -> bool:
    """Whether a file is JSON lines, some perhaps broken, and not code that holds a few."""
    alike = sum(bool(_RECORD_LIKE.match(line)) for _, line in lines)
    return 2 * alike >= len(lines) or bool(alike and lines[0][1].lstrip().startswith("{"))


def _meant_as_strings(lines: list[tuple[int, str]]) -> bool:
    """Whether the lines are meant as JSON strings; prose that merely begins with a quote is not."""
    strings = sum(isinstance(_json_or_none(line), str) for _, line in lines)
    return 2 * strings >= len(lines)


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and any(key in value for key in _RECORD_KEYS)


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or _is_record(value)


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_lines(lines: list[tuple[int, str]], file: Path) -> Iterator[tuple[_Place, Any]]:
    for number, line in lines:
        place = _Place(file, "line", number)
        try:
            yield place, json.loads(line)
        except json.JSONDecodeError as error:
            reason = f"not valid JSON: {error.msg} at column {error.colno}"
            raise place.error(reason) from None
        except (ValueError, RecursionError) as error:
            raise place.error(f"not usable JSON: {error}") from None


def _records(values: Iterator[tuple[_Place, Any]]) -> Iterator[Question]:
    for place, value in values:
        if isinstance(value, str):
            yield _question(place, str(place.number), "prompt", [value])
        elif not isinstance(value, dict):
            raise place.error(f"an object or a string is expected, not {json.dumps(value)[:40]}")
        elif "turns" in value:
            question_id = value.get("question_id", place.number)
            yield _question(place, question_id, value.get("category", ""), value["turns"])
        elif "conversations" in value:
            turns = _human_turns(place, value["conversations"])
            if turns:  # dumps hold conversations that lost their human half
                yield _question(place, value.get("id", place.number), "sharegpt", turns)
        elif "prompt" in value:
            task = str(value.get("task_id", place.number))
            category = task.split("/")[0].lower() if "/" in task else "prompt"
            yield _question(place, task, category, [value["prompt"]])
        else:
            raise place.error('none of "turns", "prompt" and "conversations" is there')


def _human_turns(place: _Place, conversation: Any) -> list[Any]:
    if not isinstance(conversation, list) or not all(isinstance(t, dict) for t in conversation):
        raise place.error('"conversations" is not a list of {"from", "value"} objects')
    return [turn.get("value") for turn in conversation if turn.get("from") in _HUMAN]


def _question(place: _Place, question_id: Any, category: Any, turns: Any) -> Question:
    if not isinstance(turns, list) or not turns:
        raise place.error('"turns" is not a list of at least one text')
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, str):
            raise place.error(f"turn {number} is not a text but {json.dumps(turn)[:40]}")
        if not turn.strip():
            raise place.error(f"turn {number} is empty")
        try:
            turn.encode()
        except UnicodeEncodeError:
            raise place.error(f"turn {number} holds half a surrogate pair") from None
    return Question(str(question_id), str(category or ""), list(turns))
