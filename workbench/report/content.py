"""What a report says, before it is laid out: plain values that a template walks through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
    trees: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
