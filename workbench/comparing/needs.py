"""What a method needs and what keeps it lossless, in plain words for tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.registry import METHODS, method_names
from engine.tree import Children


class Needs(NamedTuple):
    """One method's demands, as people read them."""

    method: str
    draft_model: str
    same_tokenizer: str
    training: str
    hidden_states: str
    lossless_under: str


#: headings of the columns
COLUMNS = ("method", "draft model", "same tokenizer", "training", "hidden states", "lossless under")


def needs(methods: Iterable[str]) -> list[Needs]:
    """A row for each of the registry's methods among the given names, once, in registry order."""
    wanted = set(methods)
    return [_needs(name) for name in method_names() if name in wanted]


def _needs(name: str) -> Needs:
    method = METHODS[name]
    rules = ["match"]
    if Children.SAMPLED in method.children:
        rules += ["multi-step", "without-replacement", "traversal"]
        rules += ["block"] if method.chain(method.options()) else []
    return Needs(
        method=name,
        draft_model=("one or more" if method.merges else "yes") if method.needs_draft else "no",
        same_tokenizer="yes" if method.needs_draft and method.same_vocabulary else "no",
        training=method.training or "no",
        hidden_states="yes" if method.hidden_states else "no",
        lossless_under=", ".join(rules),
    )
