"""`draftree doctor`: what is here, what is missing, and what to type."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import webbrowser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from engine.errors import UserError
from engine.paths import app_file, cache_folder, data_folder, runs_folder

_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "numba",
    "scipy",
    "pandas",
    "pyarrow",
    "duckdb",
    "plotly",
    "streamlit",
)
_OLDEST, _NEWEST = (3, 11), (3, 12)
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "yellow")}


class Check(NamedTuple):
    """One finding. `ok` is None where something optional is missing."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""  # what to type


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check this machine: versions, devices, folders, models; what is missing and what to type.

    Ends with exit code 1 if something is missing that Draftree cannot do without.
    """
    from workbench.terminal import print_json

    found = list(checks())
    healthy = all(check.ok is not False for check in found)
    if as_json:
        print_json({"ok": healthy, "checks": [check._asdict() for check in found]})
    else:
        _print(found)
    raise typer.Exit(0 if healthy else 1)


def checks() -> Iterator[Check]:
    """All findings, in the order in which they are shown."""
    yield _python()
    yield from map(_library, _LIBRARIES)
    yield _processor()
    yield _gpu()
    yield _compiler()
    yield _browser()
    yield _writable("run folder", runs_folder(), "DRAFTREE_RUNS")
    yield _writable("cache folder", cache_folder(), "DRAFTREE_CACHE")
    yield from map(_model, ("pycode-target", "pycode-draft", "pycode-bytes", "pycode-exit"))
    yield _prompts()
    yield _app()


def _python() -> Check:
    fits = _OLDEST <= sys.version_info[:2] <= _NEWEST
    fix = "" if fits else "python3.11 -m venv .venv && .venv/bin/pip install draftree"
    return Check("Python", fits, platform.python_version(), fix)


def _library(name: str) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version(name)
        if name not in ("streamlit", "plotly"):  # slow to import, and found out when used
            import_module(name)
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"{sys.executable} -m pip install {name}")
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        again = f"{sys.executable} -m pip install --force-reinstall {name}"
        return Check(name, False, f"{found} does not import: {error}", again)
    return Check(name, True, found)


def _processor() -> Check:
    from workbench.environment import cpu_flags, cpu_name

    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu_flags()]
    extras = f", {' '.join(wide)}" if wide else ""
    return Check("processor", True, f"{cpu_name()}, {os.cpu_count()} cores{extras}")


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check("GPU", None, "unknown without torch")
    if torch.cuda.is_available():
        from workbench.environment import driver_version

        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        return Check("GPU", True, f"{', '.join(sorted(names))}, driver {driver_version()}")
    if shutil.which("nvidia-smi"):
        return Check(
            "GPU",
            None,
            f"there is an NVIDIA driver, but torch {torch.__version__} does not see a device",
            f"{sys.executable} -m pip install --force-reinstall torch",
        )
    return Check("GPU", None, "none; everything runs on the processor")


def _compiler() -> Check:
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))), "")
    if found:
        return Check("C++ compiler", True, found)
    fix = "xcode-select --install" if sys.platform == "darwin" else "sudo apt-get install g++"
    return Check("C++ compiler", None, "none: decoding stays eager, about half as fast", fix)


def _browser() -> Check:
    try:
        return Check("browser", True, getattr(webbrowser.get(), "name", "") or "found")
    except webbrowser.Error:
        names = ("google-chrome", "chromium", "chromium-browser", "firefox")
        found = next(filter(None, map(shutil.which, names)), None)
    if found:
        return Check("browser", True, found)
    hint = "draftree app --no-browser, then open the address elsewhere"
    return Check("browser", None, "none on this machine", hint)


def _writable(name: str, folder: Path, variable: str) -> Check:
    from workbench.store.index import prepare_folder

    try:
        prepare_folder(folder)
    except UserError as error:
        return Check(name, False, str(error), f"export {variable}=$HOME/draftree")
    return Check(name, True, f"{folder}, {shutil.disk_usage(folder).free / 2**30:.0f} GB free")


def _model(name: str) -> Check:
    folder = data_folder() / "models" / name
    missing = [
        file
        for file in ("config.json", "model.safetensors", "tokenizer.json")
        if not (folder / file).is_file()
    ]
    if missing:
        again = f"draftree train pair --out {data_folder() / 'models'}"
        return Check(f"model {name}", False, f"{folder} lacks {', '.join(missing)}", again)
    size = (folder / "model.safetensors").stat().st_size
    return Check(f"model {name}", True, f"{folder}, {size / 2**20:.0f} MB")


def _prompts() -> Check:
    from workbench.workloads import list_workloads

    names = list_workloads()
    if names:
        return Check("workloads", True, ", ".join(names))
    where = data_folder() / "prompts"
    return Check("workloads", False, f"none in {where}", _reinstall())


def _app() -> Check:
    script = app_file()
    if script.is_file():
        return Check("app", True, str(script))
    return Check("app", False, f"{script} is missing", _reinstall())


def _reinstall() -> str:
    return f"{sys.executable} -m pip install --force-reinstall draftree"


def _print(found: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    from workbench.terminal import out, safe_text

    table = Table.grid(padding=(0, 2))
    for check in found:
        mark, style = _MARKS[check.ok]
        detail = Text(safe_text(check.detail))
        if check.fix:
            detail.append(f"\ntype: {safe_text(check.fix)}", style="bold")
        table.add_row(Text(mark, style=style), check.name, detail)
    out().print(table)
    missing = [check.name for check in found if check.ok is False]
    verdict = f"Missing: {', '.join(missing)}." if missing else "All that is needed is here."
    out().print(Text(f"\n{verdict}", style="bold red" if missing else "bold green"))
