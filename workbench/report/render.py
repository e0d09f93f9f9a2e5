"""Laying a report out: one HTML file that calls nobody, or Markdown."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from workbench.figures.theme import CONFIG
from workbench.report.content import Chart, Report, Tree
from workbench.view.theme import THEMES
from workbench.view.tree_svg import FROM_CSS, LEGEND, SIGNS, tree_svg

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def to_html(report: Report) -> str:
    """The report as one file: styles, script, trees, figures in both themes, plotly.js inside."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            themes=THEMES,
            style=Markup(_read("report.css")),
            script=Markup(_read("report.js")),
            plotly=Markup(get_plotlyjs()),
            figures=as_script([_figure(chart) for chart in report.charts]),
            legend=LEGEND,
            signs=SIGNS,
            config=as_script(CONFIG),
        )
    )


def to_markdown(report: Report) -> str:
    """The report without its charts, whose readings stay."""
    return _environment().get_template("report.md.j2").render(report=report)


def _figure(chart: Chart) -> dict[str, Any]:
    return {
        theme: json.loads(chart.draw(theme).to_json())  # type: ignore[arg-type]
        for theme in ("light", "dark")
    }


def _drawn(tree: Tree) -> Markup:
    """A tree in the colours of whichever theme the report is shown in."""
    label = f"{tree.heading}: {tree.reading}"
    return Markup(tree_svg(tree.laid_out, theme=FROM_CSS, label=label, ground=False))


def as_script(value: Any) -> Markup:
    """JSON that may stand inside a script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return Markup(text)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workbench.report"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = markdown_cell
    environment.filters["fence"] = markdown_fence
    environment.filters["drawn"] = _drawn
    return environment


def _read(name: str) -> str:
    return files("workbench.report").joinpath("templates", name).read_text(encoding="utf-8")


def markdown_cell(text: str) -> str:
    """Text for a line or table cell of Markdown: nothing in it is markup."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~&!])", r"\\\1", flat)


def markdown_fence(text: str) -> str:
    """A code block around text, with a fence longer than any inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
