"""The tree of one step as text: box-drawing characters, fates by symbol as well as by colour."""

from __future__ import annotations

import math

from rich.text import Text

from engine.records import Fate, Origin, StepRecord
from engine.tree import drafts_text
from workbench.terminal import FATE_STYLES, FATE_SYMBOLS, ORIGIN_STYLES
from workbench.view.folding import EMITTED, FOLD, FOLD_ABOVE, Box, boxes
from workbench.view.visible import node_label

#: most pruned nodes that are shown one by one
_PRUNED_SHOWN = 12
_LABEL = 32
_COLUMN = 46
_ORIGIN_SYMBOLS = {Origin.BONUS: "+", Origin.CORRECTION: "≠"}


def tree_lines(record: StepRecord, pieces: dict[int, str], *, full: bool = False) -> list[Text]:
    """One line per node: symbol, token, p_draft, p_target; large trees folded unless `full`."""
    everything = len(record.tree.tokens_M) + 2
    num_pruned = len(record.tree.tokens_M) - record.tree.num_nodes
    shown = boxes(
        record.tree,
        record.verdict,
        fold_above=everything if full else FOLD_ABOVE,
        pruned=full or num_pruned <= _PRUNED_SHOWN,
    )
    return [
        _line(box, indent, record, pieces)
        for box, indent in zip(shown, _indents(shown), strict=True)
    ]


def symbols_legend(record: StepRecord) -> Text:
    """What the symbols that occur in this step mean."""
    fates = {Fate(int(code)) for code in record.verdict.fate_N} - {Fate.ROOT}
    if len(record.tree.tokens_M) > record.tree.num_nodes:
        fates.add(Fate.PRUNED)
    names = {fate: fate.name.lower().replace("_", " ") for fate in sorted(fates)}
    words = [f"{FATE_SYMBOLS[fate]} {name}" for fate, name in names.items()]
    origin = record.verdict.origin
    words.append(f"{_ORIGIN_SYMBOLS[origin]} {origin.name.lower()}")
    return Text("   ".join(words), style="dim")


def _indents(shown: list[Box]) -> list[str]:
    """The branches drawn before each box. Boxes come in preorder."""
    last_child = {box.up: at for at, box in enumerate(shown)}
    indents: list[str] = []
    below: list[str] = []  # what the children of a box start with
    for at, box in enumerate(shown):
        if box.up < 0:
            indents.append("")
            below.append("")
            continue
        is_last = last_child[box.up] == at
        indents.append(below[box.up] + ("└─ " if is_last else "├─ "))
        below.append(below[box.up] + ("   " if is_last else "│  "))
    return indents


def _line(box: Box, indent: str, record: StepRecord, pieces: dict[int, str]) -> Text:
    line = Text(indent, style="dim")
    if box.node == FOLD:
        plural = "" if box.hidden == 1 else "s"
        return line.append(f"… {box.hidden} node{plural} folded")
    if box.node == EMITTED:
        return _emitted_line(line, record, pieces)
    tree, verdict = record.tree, record.verdict
    scored = box.node < tree.num_nodes
    fate = Fate(int(verdict.fate_N[box.node])) if scored else Fate.PRUNED
    token = int(tree.tokens_M[box.node])
    line.append(f"{FATE_SYMBOLS[fate]} {_name(token, pieces)}", style=FATE_STYLES[fate])
    if box.node:
        _pad(line)
        line.append(f"draft {_percent(tree.draft_logprob_M[box.node])}", style="dim")
        line.append(f"  target {_percent(record.target_logprob_M[box.node])}", style="dim")
        if tree.drafts_M is not None:
            line.append(f"  by {drafts_text(int(tree.drafts_M[box.node]))}", style="dim")
    if box.hidden:
        line.append(f"  {box.hidden} pruned below", style="dim")
    if fate is Fate.PRUNED:
        line.append(f"  in round {int(tree.round_pruned_M[box.node])}", style="dim")
    return line


def _emitted_line(line: Text, record: StepRecord, pieces: dict[int, str]) -> Text:
    origin = record.verdict.origin
    name = _name(record.verdict.next_token, pieces)
    line.append(f"{_ORIGIN_SYMBOLS[origin]} {name}", style=ORIGIN_STYLES[origin])
    _pad(line)
    line.append(f"               target {_percent(record.emitted_logprob[-1])}", style="dim")
    if record.num_kept < len(record.emitted):
        line.append("  cut off", style="dim")
    return line


def _name(token: int, pieces: dict[int, str]) -> str:
    return node_label(pieces.get(token, f"<{token}>"), most=_LABEL)


def _pad(line: Text) -> None:
    line.append(" " * max(2, _COLUMN - line.cell_len))


def _percent(logprob: float) -> str:
    if math.isnan(logprob):
        return "    -   "
    return f"{math.exp(logprob):8.2%}"
