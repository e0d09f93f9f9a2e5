"""Cut the three workloads of `data/prompts` from held-out files, by place alone.

Which places are taken depends on the hash of file and line, never on what any model makes of
them; so the workloads neither flatter nor punish the embedded pair.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.training.corpus import SourceFile

PER_FILE = 2
"""Prompts taken from one file at most, so that no module dominates."""

_MIN, _MAX = 600, 1300
"""Length of a prompt in characters: about 150 to 400 tokens of the embedded tokenizer."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Prompt(NamedTuple):
    """A text to continue, and where it was cut."""

    text: str
    path: str
    line: int


def code_prompts(file: SourceFile) -> Iterator[Prompt]:
    """Yield code that ends after a signature or half-way through a function."""
    lines = file.text.split("\n")
    for function in _functions(file):
        first, last = function.body[0], function.body[-1]
        if (last.end_lineno or 0) - function.lineno < 6:
            continue
        if _bit(file.path, function.lineno):
            end = first.lineno - 1  # the signature's last line
        else:
            end = (first.lineno + (last.end_lineno or 0)) // 2
        while end > function.lineno and not lines[end - 1].strip():
            end -= 1
        text = _context(lines, end)
        if text is not None:
            yield Prompt(text, file.path, end)


def docstring_prompts(file: SourceFile) -> Iterator[Prompt]:
    """Yield prose: docstrings and comment blocks cut half-way, with some text before."""
    lines = file.text.split("\n")
    for begin, end in _prose(file, lines):
        if end - begin >= 6:
            cut = (begin + end) // 2
            while cut > begin and not lines[cut - 1].strip():
                cut -= 1
            text = _context(lines, cut)
            if text is not None:
                yield Prompt(text, file.path, cut)


def edit_prompts(file: SourceFile) -> Iterator[Prompt]:
    """Yield a function, and the beginning of a copy of it with one name changed."""
    for function in _functions(file):
        source = ast.get_source_segment(file.text, function, padded=True)
        name = _frequent_name(function)
        if source is None or name is None or not _MIN // 2 <= len(source) <= _MAX * 3 // 4:
            continue
        new = f"new_{name}"
        begun = source.split("\n")[: function.body[0].lineno - function.lineno + 1]
        copied = re.sub(rf"\b{re.escape(name)}\b", new, "\n".join(begun))
        indent = source[: len(source) - len(source.lstrip())]
        note = f"{indent}# The same function, with {name} renamed to {new}."
        yield Prompt(f"{source}\n\n{note}\n{copied}", file.path, function.lineno)


WORKLOADS: dict[str, Callable[[SourceFile], Iterable[Prompt]]] = {
    "code": code_prompts,
    "docstring": docstring_prompts,
    "edit": edit_prompts,
}


def choose_prompts(workload: str, files: Sequence[SourceFile], *, count: int = 16) -> list[Prompt]:
    """Return `count` prompts of a workload from the given files.

    Raises:
        ValueError: the files do not hold so many.
    """
    chosen: list[Prompt] = []
    for file in files:
        found = sorted(WORKLOADS[workload](file), key=lambda p: _hash(p.path, p.line))
        chosen.extend(found[:PER_FILE])
    chosen.sort(key=lambda p: _hash(p.path, p.line))
    if len(chosen) < count:
        raise ValueError(f"{len(chosen)} places for {workload} prompts, {count} are wanted")
    return chosen[:count]


def write_workloads(files: Sequence[SourceFile], folder: Path, *, count: int = 16) -> None:
    """Write `code.jsonl`, `docstring.jsonl` and `edit.jsonl` in Spec-Bench's question form."""
    folder.mkdir(parents=True, exist_ok=True)
    library = [file for file in files if not file.is_test]
    number = 0
    for workload in WORKLOADS:
        rows = []
        for prompt in choose_prompts(workload, library, count=count):
            number += 1
            rows.append(
                {
                    "question_id": number,
                    "category": workload,
                    "turns": [prompt.text],
                    "source": f"{prompt.path}:{prompt.line}",
                }
            )
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{workload}.jsonl").write_text(text, encoding="utf-8")


def _functions(file: SourceFile) -> Iterator[Function]:
    for node in ast.walk(_parse(file)):
        if isinstance(node, Function):
            yield node


def _prose(file: SourceFile, lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield first and last line (from 1) of docstrings and comment blocks."""
    for node in ast.walk(_parse(file)):
        if isinstance(node, Function | ast.ClassDef | ast.Module) and ast.get_docstring(node):
            yield node.body[0].lineno, node.body[0].end_lineno or 0
    begin = None
    for number, line in enumerate([*lines, ""], start=1):
        if line.lstrip().startswith("#"):
            begin = begin or number
        elif begin is not None:
            yield begin, number - 1
            begin = None


def _parse(file: SourceFile) -> ast.AST:
    try:
        return ast.parse(file.text)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _context(lines: Sequence[str], end: int) -> str | None:
    """Return the lines up to `end`, from a line that begins something, or None if too short."""
    begin, size = end, 0
    best = None
    while begin > 0 and size + len(lines[begin - 1]) + 1 <= _MAX:
        begin -= 1
        size += len(lines[begin]) + 1
        opens = begin == 0 or not lines[begin - 1].strip()
        if opens and lines[begin].strip() and size >= _MIN:
            best = begin
    return None if best is None else "\n".join(lines[best:end])


def _frequent_name(function: Function) -> str | None:
    """Return the argument or local variable used most often, at least three times."""
    own = {argument.arg for argument in function.args.args} - {"self", "cls"}
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    own |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    counts = Counter(node.id for node in names if node.id in own and len(node.id) > 2)
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:1]
    return best[0][0] if best and best[0][1] >= 3 else None


def _hash(path: str, line: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{path}:{line}".encode()).digest()[:8], "big")


def _bit(path: str, line: int) -> bool:
    return _hash(path, -line) % 2 == 0
