"""Where two tokenizers meet in text: reading a seam again, aligning it, finding runs of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

#: lengths of the run that is looked up in the text, the longest found decides
_RUNS = (16, 8, 5, 3)


def spelled(ids: Iterable[int]) -> str:
    """A letter for each token, whatever it means: text is searched faster than lists."""
    return "".join(map(chr, ids))


def followed(letters: str, count: int) -> str:
    """At most `count` letters that followed the latest earlier copy of the longest last run."""
    if count > 0:
        for size in _RUNS:
            if size < len(letters):
                at = letters.rfind(letters[-size:], 0, -1)
                if at >= 0:
                    return letters[at + size : at + size + count]
    return ""


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of text, nothing added.

    Straight from the tokenizer's core where it would neither cut nor pad: a third of the time.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is not None and core.truncation is None and core.padding is None:
        return list(core.encode(text, add_special_tokens=False).ids)
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False)) if text else []


def append_aligned(known: list[int], again: list[int], behind: int) -> list[int]:
    """`known` continued by what `again` has beyond it.

    `again` is the last `behind` of `known` and what follows, encoded anew. The longest run shared
    with the end of `known` says where it goes on; known tokens after that run are replaced. Without
    any, all of it is appended.
    """
    tail = known[-behind:]
    best = (0, 0, 0)  # length of the run, its end in the tail, its end in `again`
    for shift in range(-len(tail) + 1, len(again)):
        run = 0
        for at in range(max(0, -shift), min(len(tail), len(again) - shift)):
            run = run + 1 if tail[at] == again[at + shift] else 0
            if (run, at + 1) > best[:2]:
                best = (run, at + 1, at + shift + 1)
    run, end, place = best
    if not run:
        return known + again
    return known[: len(known) - len(tail) + end] + again[place:]


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    count = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:count]) != np.asarray(other[:count]))
    return int(differ[0]) if len(differ) else count
