"""The terminal: two consoles, styles of tokens, and nothing raw from a model or a file."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

from engine.records import Fate, Origin
from workbench.view.visible import safe_text

#: columns for tables where no terminal says how many there are
_PIPE_WIDTH = 140

#: told apart by shape as well as by colour
ORIGIN_STYLES = {
    Origin.DRAFT: "green",
    Origin.BONUS: "bold blue underline",
    Origin.CORRECTION: "italic yellow",
}
ORIGIN_WORDS = {
    Origin.DRAFT: "accepted from the draft",
    Origin.BONUS: "bonus",
    Origin.CORRECTION: "correction",
}
FATE_STYLES = {
    Fate.ROOT: "bold",
    Fate.ACCEPTED: "green",
    Fate.REJECTED: "red",
    Fate.NOT_REACHED: "dim",
    Fate.PRUNED: "dim strike",
}
FATE_SYMBOLS = {
    Fate.ROOT: "●",
    Fate.ACCEPTED: "✓",
    Fate.REJECTED: "✗",
    Fate.NOT_REACHED: "·",
    Fate.PRUNED: "✂",
}


@cache
def out() -> Console:
    """Standard output. Long lines wrap in the terminal, not here."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=width)


@cache
def err() -> Console:
    """Standard error: progress and messages."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def reset_consoles() -> None:
    """Forget the consoles: the streams have changed (in tests)."""
    out.cache_clear()
    err.cache_clear()


def print_json(value: Any) -> None:
    """One JSON object on standard output, pure ASCII: escapes cannot reach the terminal."""
    sys.stdout.write(json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def jsonable(value: Any) -> Any:
    """`value` with NaN and infinities as null, which JSON has no words for."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return None
    return value


def write_token(text: str, origin: Origin | None = None) -> None:
    """A token's text on standard output, made safe, styled by how it came about."""
    console, safe = out(), safe_text(text)
    if console.is_terminal and origin is not None:
        console.print(Text(safe, style=ORIGIN_STYLES[origin]), end="")
    else:
        console.file.write(safe)
        console.file.flush()


def one_line(text: str, width: int) -> str:
    """The beginning of `text` on one line of at most `width` characters."""
    line = safe_text(text).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= width else line[: width - 1] + "…"


def say(message: str) -> None:
    """A sentence for people, on standard error."""
    err().print(Text(safe_text(message)))


def complain(message: str) -> None:
    """What went wrong, on standard error."""
    err().print(Text("Error: ", style="bold red") + Text(safe_text(message), style="default"))
