"""Where the nodes of a draft tree stand: one layout for the page, the figure and the report.

Time runs to the right, one column per depth; siblings stand below each other in rank order; a
node is level with its first child, so that the best path is a straight line. Units are pixels.
"""

from __future__ import annotations

from typing import Any

from engine.records import StepRecord
from workbench.view.facts import FACTS, facts
from workbench.view.folding import FOLD_ABOVE, Box, boxes

ROW = 32.0  # from one row to the next
BOX_HEIGHT = 24.0
GAP = 42.0  # between columns
_CHAR = 7.25  # advance of the 12 px code font
_WIDTHS = (46.0, 124.0)
_MARGIN = 30.0  # around the label, with the sign of its fate


def layout(
    record: StepRecord,
    pieces_M: list[str],
    *,
    emitted: str,
    fold_above: int = FOLD_ABOVE,
    pruned: bool = False,
) -> dict[str, Any]:
    """Lay out the tree of one step; the result is plain JSON, the same for the same step.

    `pieces_M` shows each node's token as text and `emitted` the bonus or correction. Every entry
    of the result but `width`, `height`, `reasons` and `hidden_nodes` is a column with one value
    per box, a parent before its children: `node` (index in the tree, -1 the emitted token, -2 a
    fold), `up` (the parent's box), `x`, `y` (left and middle), `w`, `label`, `piece`, `kind`,
    `depth`, `rank`, `siblings`, `token`, `p_draft`, `p_target`, `p_path`, `round`, `source`,
    `drafts` (of several draft models, those that have it), `hidden` (nodes behind a fold, or pruned
    ones below a node that are not drawn) and `why` (index in `reasons`). Above `fold_above` boxes
    the least likely branches become one fold per parent; the accepted path never does. Pruned
    nodes, which the target never saw, are drawn if `pruned`.
    """
    found = boxes(record.tree, record.verdict, fold_above=fold_above, pruned=pruned)
    rows = facts(found, record, pieces_M, emitted=emitted)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in FACTS}
    reasons = list(dict.fromkeys(columns["why"]))
    columns["why"] = [reasons.index(why) for why in columns["why"]]
    columns |= {"reasons": reasons, "hidden_nodes": sum(box.hidden for box in found)}
    return columns | _place(found, columns["label"])


def _place(found: list[Box], labels: list[str]) -> dict[str, Any]:
    widths: dict[int, float] = {}
    for box, label in zip(found, labels, strict=True):
        width = min(max(len(label) * _CHAR + _MARGIN, _WIDTHS[0]), _WIDTHS[1])
        widths[box.depth] = max(widths.get(box.depth, 0.0), width)
    lefts = [0.0]
    for depth in range(len(widths)):
        lefts.append(lefts[-1] + widths[depth] + GAP)
    tops = _rows(found)
    return {
        "x": [lefts[box.depth] for box in found],
        "y": [top + BOX_HEIGHT / 2 for top in tops],
        "w": [widths[box.depth] for box in found],
        "width": lefts[-1] - GAP,
        "height": max(tops) + BOX_HEIGHT,
    }


def _rows(found: list[Box]) -> list[float]:
    has_child = {box.up for box in found}
    tops = [0.0] * len(found)
    leaves = 0
    for index in range(len(found)):
        if index not in has_child:
            tops[index] = leaves * ROW
            leaves += 1
    for index in range(len(found) - 1, 0, -1):  # the first child comes last here, and stays
        tops[found[index].up] = tops[index]
    return tops
