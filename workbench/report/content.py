"""What a report says, before it is laid out: plain values that a template walks through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import plotly.graph_objects as go

from workbench.view.theme import ThemeName

Draw = Callable[[ThemeName], go.Figure]


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; numbers stand right."""

    name: str
    number: bool = False


@dataclass(slots=True)
class Table:
    """Cells are text as people read it. `strong` names the row to look at first."""

    heading: str
    columns: list[Column]
    rows: list[list[str]]
    note: str = ""
    strong: int | None = None


@dataclass(slots=True)
class Chart:
    """A figure with a sentence that reads it: never a chart without its numbers in words."""

    heading: str
    reading: str
    draw: Draw
    wide: bool = False


@dataclass(slots=True)
class Tree:
    """A step's draft tree as `view.layout` placed it, with a sentence that reads it."""

    heading: str
    reading: str
    laid_out: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of the sample output and how it came about: draft, bonus or correction."""

    text: str
    origin: str


@dataclass(slots=True)
class Sample:
    """What an arm wrote, after the end of its prompt."""

    heading: str
    prompt: str
    pieces: list[Piece]


@dataclass(slots=True)
class Report:
    """A report. `tone` colours the verdict: pays, costs, even or open."""

    title: str
    made: str
    verdict: str
    tone: str
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    about: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    lossless: str = ""
    lossless_tables: list[Table] = field(default_factory=list)
    prompts: list[Table] = field(default_factory=list)
    sample: Sample | None = None
    trees: list[Tree] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


#: parts of a report that may be left out, with the name of each; the verdict, the table of results
#: and the commands that do it again always stay
SECTIONS = {
    "about": "Environment and protocol",
    "charts": "Charts",
    "lossless": "Losslessness",
    "prompts": "Prompt by prompt",
    "sample": "Sample output",
    "trees": "Draft trees",
}


def only(report: Report, sections: Iterable[str], *, title: str = "") -> Report:
    """The report with these of its `SECTIONS`, under another title if one is given."""
    kept = set(sections)
    values: dict[str, Any] = {"title": title.strip() or report.title}
    if "about" not in kept:
        values |= {"about": [], "notes": []}
    if "lossless" not in kept:
        values["lossless_tables"] = []
    if "sample" not in kept:
        values["sample"] = None
    values |= {name: [] for name in ("charts", "prompts", "trees") if name not in kept}
    return replace(report, **values)
