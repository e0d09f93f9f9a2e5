"""What a report is handed on as: one file, or several in a zip."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from engine.errors import UserError
from workbench.comparing import result
from workbench.report import images
from workbench.report.again import run_command
from workbench.report.content import SECTIONS, Chart, Report, Tree, only
from workbench.report.files import gather
from workbench.report.render import to_html, to_markdown
from workbench.store.export import export_run
from workbench.store.reader import RunReader, open_run
from workbench.view.theme import THEMES, ThemeName
from workbench.view.tree_figure import tree_figure
from workbench.view.tree_svg import tree_svg

#: form -> what it is called
FORMS = {
    "html": "HTML, one file",
    "markdown": "Markdown",
    "json": "run.json",
    "csv": "CSV tables",
    "parquet": "Parquet tables",
    "pictures": "Pictures (SVG, PNG)",
    "all": "Everything",
}


class File(NamedTuple):
    """A file to hand over."""

    name: str
    content: bytes
    mime: str


class Asked(NamedTuple):
    """What a report is to be on: runs, or one comparison, by id; and what it is to hold."""

    wanted: tuple[str, ...]
    title: str = ""
    sections: tuple[str, ...] = tuple(SECTIONS)

    def report(self, runs: Path | None = None) -> Report:
        """What it says. Raises UserError."""
        return only(gather(self.wanted, runs), self.sections, title=self.title)


def file_name(asked: Asked, form: str) -> str:
    """What the file of `handed` is called."""
    one = len(asked.wanted) == 1
    if form == "json" and one and not result.is_comparison(asked.wanted[0]):
        return "run.json"
    name = "report-" + (asked.wanted[0] if one else f"{len(asked.wanted)}-runs")
    return name + {"html": ".html", "markdown": ".md"}.get(form, ".zip")


def handed(
    asked: Asked, form: str, *, runs: Path | None = None, theme: ThemeName = "light"
) -> File:
    """The report in one of `FORMS`. Raises UserError where a run is gone or cannot be read."""
    name = file_name(asked, form)
    if form == "html":
        return File(name, to_html(asked.report(runs)).encode(), "text/html")
    if form == "markdown":
        return File(name, to_markdown(asked.report(runs)).encode(), "text/markdown")
    files = list(_files(asked, form, runs, theme))
    if name.endswith(".json"):
        return File(name, files[0][1], "application/json")
    return File(name, _packed(files), "application/zip")


def pictures(asked: Asked, runs: Path | None = None) -> list[tuple[str, bool]]:
    """The charts and then the trees of a report by name, and whether each is a tree."""
    report = asked.report(runs)
    return [
        *((chart.heading, False) for chart in report.charts),
        *((f"Tree: {tree.heading}", True) for tree in report.trees),
    ]


def picture(
    asked: Asked,
    at: int,
    form: images.Form,
    *,
    runs: Path | None = None,
    theme: ThemeName = "light",
) -> bytes:
    """One of `pictures`. SVG of a tree needs no browser. Raises UserError where there is none."""
    report = asked.report(runs)
    if at < len(report.charts):
        return images.chart_images([report.charts[at]], form=form, theme=theme)[0]
    tree = report.trees[at - len(report.charts)]
    if form == "svg":
        return _tree(tree, theme)
    chart = Chart(tree.heading, tree.reading, partial(_tree_figure, tree), wide=True)
    return images.chart_images([chart], form=form, theme=theme)[0]


def _tree(tree: Tree, theme: ThemeName) -> bytes:
    label = f"{tree.heading}: {tree.reading}"
    return tree_svg(tree.laid_out, theme=THEMES[theme], label=label).encode()


def _tree_figure(tree: Tree, theme: ThemeName) -> go.Figure:
    return tree_figure(tree.laid_out, theme=THEMES[theme])


def _packed(files: Sequence[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files:
            archive.writestr(path, content)
    return packed.getvalue()


def _files(
    asked: Asked, form: str, runs: Path | None, theme: ThemeName
) -> Iterable[tuple[str, bytes]]:
    """Paths in the zip, with their content."""
    everything = form == "all"
    if form in ("pictures", "all"):
        report = asked.report(runs)
        if everything:
            yield "report.html", to_html(report).encode()
            yield "report.md", to_markdown(report).encode()
        yield from _pictures(report, theme)
    if form == "pictures":
        return
    for run_id in run_ids_of(asked.wanted, runs):
        with open_run(run_id, runs) as run:
            if form in ("json", "all"):
                text = json.dumps(run_json(run), indent=2, ensure_ascii=True)
                yield f"{run_id}/run.json", text.encode()
            for table in ("csv", "parquet"):
                if form in (table, "all"):
                    yield from _tables(run, table)
    if form in ("json", "all") and result.is_comparison(asked.wanted[0]):
        found = result.load(asked.wanted[0], runs).as_json()
        yield "comparison.json", json.dumps(found, indent=2).encode()


def _tables(run: RunReader, form: str) -> Iterable[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory(prefix="draftree-") as folder:
        for path in export_run(run, Path(folder), form=form):
            yield f"{run.run_id}/{path.name}", path.read_bytes()


def _pictures(report: Report, theme: ThemeName) -> Iterable[tuple[str, bytes]]:
    for at, tree in enumerate(report.trees, 1):
        yield f"pictures/tree-{at}.svg", _tree(tree, theme)
    names = [f"{at:02}-{_slug(chart.heading)}" for at, chart in enumerate(report.charts, 1)]
    forms: tuple[images.Form, ...] = ("svg", "png")
    try:
        for form in forms if report.charts else ():
            drawn = images.chart_images(report.charts, form=form, theme=theme)
            for name, content in zip(names, drawn, strict=True):
                yield f"pictures/{name}.{form}", content
    except UserError as error:  # no browser here: the rest is still worth having
        yield "pictures/charts are missing.txt", f"{error}\n".encode()


def run_ids_of(wanted: Sequence[str], runs: Path | None = None) -> list[str]:
    """The stored runs behind what was wanted: of a comparison, those of its arms."""
    if not result.is_comparison(wanted[0]):
        return list(dict.fromkeys(wanted))
    return [arm.run_id for arm in result.load(wanted[0], runs).arms if arm.run_id]


def run_json(run: RunReader) -> dict[str, Any]:
    """A run without its steps: what was asked for, what it ran on, what came of it."""
    info = run.info
    requests = run.requests().astype(object)
    return {
        "format": 1,
        "run": info.run_id,
        "status": str(info.status),
        "message": info.message,
        "started": info.started,
        "finished": info.finished,
        "mode": info.mode,
        "plain_step_ns": info.plain_step_ns,
        "spec": info.spec.model_dump(mode="json"),
        "command": run_command(info.spec),
        "environment": info.environment,
        "summary": info.summary,
        "requests": requests.where(requests.notna(), None).to_dict("records"),
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48]
