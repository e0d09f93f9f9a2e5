"""What is known of each box of a drawn tree, as a row of plain values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.records import Fate, Origin, StepRecord
from engine.tree import Source, drafts_text
from workbench.view.folding import EMITTED, FOLD, Box, path_logprobs
from workbench.view.reasons import Reasons
from workbench.view.visible import node_label, safe_text

KINDS = {
    Fate.ROOT: "root",
    Fate.ACCEPTED: "accepted",
    Fate.REJECTED: "rejected",
    Fate.NOT_REACHED: "not-reached",
    Fate.PRUNED: "pruned",
}

#: what drafted a node, where the stored word says little
_SOURCES = {Source.SELF: "the target's own layers", Source.HEAD: "a trained head"}

FACTS = (
    *("node", "up", "kind", "label", "piece", "token", "depth", "rank", "siblings"),
    *("p_draft", "p_target", "p_path", "round", "source", "drafts", "hidden", "why"),
)


def facts(
    found: list[Box], record: StepRecord, pieces_M: list[str], *, emitted: str
) -> list[dict[str, Any]]:
    """One row per box with the keys FACTS; what does not apply is None, `why` is a sentence."""
    words = Reasons(record, pieces_M=pieces_M, emitted=emitted)
    siblings = np.bincount(record.tree.parents_M[1:], minlength=len(pieces_M))
    paths = path_logprobs(record.tree)
    rows = []
    for box in found:
        row = dict.fromkeys(FACTS) | {"node": box.node, "up": box.up, "depth": box.depth}
        row["hidden"] = box.hidden
        if box.node == FOLD:
            row |= _of_fold(box)
        elif box.node == EMITTED:
            row |= _of_emitted(record, emitted) | {"why": words.of_emitted()}
        else:
            row |= _of_node(box.node, record, pieces_M) | {"why": words.of_node(box.node)}
            if box.node:
                row["siblings"] = int(siblings[record.tree.parents_M[box.node]])
                row["p_path"] = _probability(paths[box.node])
        rows.append(row)
    _complete_rounds(rows)
    return rows


def _of_fold(box: Box) -> dict[str, Any]:
    many = "1 less likely node is" if box.hidden == 1 else f"{box.hidden} less likely nodes are"
    label = f"+{box.hidden}"
    return {
        "kind": "fold",
        "label": label,
        "piece": label,
        "why": f"{many} folded here. Click to show the whole tree.",
    }


def _of_emitted(record: StepRecord, emitted: str) -> dict[str, Any]:
    return {
        "kind": "bonus" if record.verdict.origin is Origin.BONUS else "correction",
        "label": node_label(emitted),
        "piece": safe_text(emitted),
        "token": int(record.verdict.next_token),
        "p_target": _probability(record.emitted_logprob[-1]),
    }


def _of_node(node: int, record: StepRecord, pieces: list[str]) -> dict[str, Any]:
    tree = record.tree
    scored = node < tree.num_nodes
    row = {
        "kind": KINDS[Fate(int(record.verdict.fate_N[node]))] if scored else "pruned",
        "label": node_label(pieces[node]),
        "piece": safe_text(pieces[node]),
        "token": int(tree.tokens_M[node]),
        "round": int(tree.round_added_M[node]),
    }
    if node:
        row["rank"] = int(tree.rank_M[node])
        row["p_draft"] = _probability(tree.draft_logprob_M[node])
        row["p_target"] = _probability(record.target_logprob_M[node])
        source = Source(int(tree.source_M[node]))
        row["source"] = _SOURCES.get(source, source.name.lower())
        if tree.drafts_M is not None:
            row["drafts"] = drafts_text(int(tree.drafts_M[node]))
    return row


def _complete_rounds(rows: list[dict[str, Any]]) -> None:
    """Growth is shown by round; the emitted token and folds appear after all of it."""
    last = max(row["round"] or 0 for row in rows)
    for row in rows:
        if row["round"] is None:
            row["round"] = last + 1


def _probability(logprob: float | np.floating[Any]) -> float | None:
    value = float(logprob)
    return None if math.isnan(value) else float(f"{math.exp(min(value, 0.0)):.4g}")
