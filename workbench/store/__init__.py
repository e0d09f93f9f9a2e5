"""Stored runs: one DuckDB file per run, and a small index of them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.store.index import RunEntry, list_runs, mark_interrupted, resolve_run, run_file
from workbench.store.schema import RunStatus

if TYPE_CHECKING:
    from workbench.store.export import export_run
    from workbench.store.reader import RunInfo, RunReader, open_run
    from workbench.store.writer import Recorder

# DuckDB, Arrow and pandas take half a second to import, and a list of runs needs none of them
_LAZY = {
    "open_run": "reader",
    "RunReader": "reader",
    "RunInfo": "reader",
    "Recorder": "writer",
    "export_run": "export",
}

__all__ = [
    "Recorder",
    "RunEntry",
    "RunInfo",
    "RunReader",
    "RunStatus",
    "export_run",
    "list_runs",
    "mark_interrupted",
    "open_run",
    "resolve_run",
    "run_file",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"workbench.store.{_LAZY[name]}"), name)
