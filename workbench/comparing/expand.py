"""Options as lists: `dynamic-tree:nodes=[4,6,8],depth=[3,4]` stands for six arms.

In brackets, commas part the values; where a value holds commas itself, as shapes do, bars do:
`static-tree:expansion=[2,2,1|3,2,1]`. No method is imported here, so forms can count arms at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from engine.errors import UserError

MOST_ARMS = 400
_METHOD_LIKE = re.compile(r"[A-Za-z][\w-]*\s*(:|$)")


def split_methods(text: str) -> list[str]:
    """Split at the commas that begin a method: options and their values may hold commas too."""
    parts: list[str] = []
    for piece in pieces(text):
        begins = _METHOD_LIKE.match(piece) and "=" not in piece.partition(":")[0]
        if begins or not parts:
            parts.append(piece)
        else:
            parts[-1] += f",{piece}"
    return [part for part in parts if part]


def expand(arms: Iterable[str]) -> list[str]:
    """Every arm that these stand for, in order, each once. Raises UserError."""
    found: dict[str, None] = {}
    for text in arms:
        method, options = read_arm(text)
        listed = {name: values_of(value, name, method) for name, value in options.items()}
        num_arms = math.prod(map(len, listed.values()))
        if num_arms + len(found) > MOST_ARMS:
            raise UserError(
                f"{text[:80]} stands for {num_arms} arms; at most {MOST_ARMS} can be measured. "
                "Shorten its lists."
            )
        for chosen in product(*listed.values()):
            found[arm_text(method, dict(zip(listed, chosen, strict=True)))] = None
    return list(found)


def has_lists(text: str) -> bool:
    """Whether an arm stands for several."""
    return "[" in text.partition(":")[2]


def read_arm(text: str) -> tuple[str, dict[str, str]]:
    """Method and options of an arm as they were typed, lists in brackets. Raises UserError.

    `a=1,b=2,3` reads as {a: "1", b: "2,3"}: a piece without a name belongs to the value before it.
    """
    method, _, tail = text.strip().partition(":")
    method = method.strip()
    if tail.count("[") != tail.count("]"):
        raise UserError(f"{text[:80]} has a bracket without its other half; write nodes=[4,6,8].")
    values: dict[str, str] = {}
    last = ""
    for piece in filter(None, pieces(tail)):
        key, equals, value = piece.partition("=")
        if equals and "[" not in key:
            last = key.strip().replace("-", "_")
            values[last] = value.strip()
        elif last:
            values[last] += f",{piece}"
        else:
            raise UserError(f"{piece!r} of {method} is no option; write {method}:name=value,...")
    return method, values


def values_of(value: str, name: str = "", method: str = "") -> list[str]:
    """The values that an option is given: one, or those in brackets. Raises UserError."""
    if not value.startswith("["):
        return [value]
    inside = value.removeprefix("[").removesuffix("]")
    parted = inside.split("|" if "|" in inside else ",")
    listed = list(dict.fromkeys(part.strip() for part in parted))
    if not value.endswith("]") or "[" in inside or not all(listed):
        raise UserError(
            f"Option {name} of {method} is {value!r}; a list is written [4,6,8], or [2,2,1|3,2,1] "
            "where values hold commas."
        )
    return listed


def arm_text(method: str, options: Mapping[str, Any]) -> str:
    """An arm as it is typed. A list or tuple as value gets its brackets."""
    written = ",".join(f"{name}={_typed(value)}" for name, value in options.items())
    return f"{method}:{written}" if written else method


def pieces(text: str) -> Iterator[str]:
    """The text between commas that stand outside of brackets, stripped."""
    depth, begin = 0, 0
    for at, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth <= 0:
            yield text[begin:at].strip()
            begin = at + 1
    yield text[begin:].strip()


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, list | tuple):
        return str(value).strip()
    written = [_typed(one) for one in value]
    return f"[{('|' if any(',' in one for one in written) else ',').join(written)}]"
