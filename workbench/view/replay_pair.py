"""Two stored runs of one prompt: which are offered, where their texts part, what each took."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workbench.losslessness import first_difference
from workbench.store import RunEntry
from workbench.view.headline import figures
from workbench.view.replay import Replay, replayable
from workbench.view.visible import node_label


def comparable(one: RunEntry, others: Iterable[RunEntry]) -> list[RunEntry]:
    """The other runs that can stand beside `one`: the same prompts and the same models.

    A run without a draft fits every draft of its target: plain decoding is what one compares with.
    """
    return [
        other
        for other in others
        if other.run_id != one.run_id
        and replayable(other)
        and all(other.spec.get(name) == one.spec.get(name) for name in _SAME)
        and (
            not (other.spec.get("draft") and one.spec.get("draft"))
            or other.spec["draft"] == one.spec["draft"]
        )
    ]


_SAME = ("prompt", "workload", "target")


def pair_facts(left: Replay, right: Replay) -> dict[str, Any]:
    """Plain JSON: `fork`, the output position from which the texts differ (None: they do not),
    `sentence` that says so, and `totals`, rows of a name and both values."""
    fork, sentence = divergence(left, right)
    return {"fork": fork, "sentence": sentence, "totals": totals(left, right)}


def divergence(left: Replay, right: Replay) -> tuple[int | None, str]:
    """The first output position at which the kept tokens differ, and a sentence."""
    if left.prompt != right.prompt:
        return None, "The prompts differ, so the texts cannot be compared token by token."
    tokens = [_kept_tokens(side) for side in (left, right)]
    at = first_difference(*tokens)
    if at is None:
        return None, f"No difference: both texts have the same {_count(len(tokens[0]))}."
    shorter = min(map(len, tokens))
    if at == shorter:
        name = "left" if len(tokens[0]) > shorter else "right"
        more = max(map(len, tokens)) - shorter
        return None, (
            f"No difference in the {_count(shorter)} that both have; the {name} text goes on for "
            f"{_count(more)}."
        )
    named = [_named(left, tokens[0][at]), _named(right, tokens[1][at])]
    after = f"after {_count(at)} that are the same" if at else "at the first token"
    return at, f"The texts part {after}: {named[0]} on the left, {named[1]} on the right."


def totals(left: Replay, right: Replay) -> list[tuple[str, str, str]]:
    """Rows of a name and both values, as they are shown."""
    rows = []
    for side in (left, right):
        summary = side.summary
        own = {
            "tokens": str(summary.kept),
            "decoding time": f"{summary.decode_ns / 1e9:.2f} s",
        }
        own |= {figure["label"]: figure["value"] for figure in figures(summary, None)}
        own.pop("of plain speed, estimated")
        rows.append(own)
    return [(name, rows[0][name], rows[1][name]) for name in rows[0]]


def _kept_tokens(side: Replay) -> list[int]:
    return side.tokens.loc[side.tokens["kept"].astype(bool), "token"].tolist()


def _named(side: Replay, token: int) -> str:
    pieces = side.tokens.loc[side.tokens["token"] == token, "piece"]
    piece = pieces.iloc[0] if len(pieces) and isinstance(pieces.iloc[0], str) else ""
    return f"“{node_label(piece)}” (token {token})" if piece else f"token {token}"


def _count(tokens: int) -> str:
    return "1 token" if tokens == 1 else f"{tokens} tokens"
