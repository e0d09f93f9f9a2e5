"""`draftree methods`: what can be asked for, from the methods' own documentation."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the methods with their options, types, defaults and one line on each.

    Set an option with `draftree run --method METHOD --option NAME=VALUE`.
    """
    from workbench.terminal import print_json

    found = all_methods()
    if as_json:
        print_json({"methods": found})
    else:
        _print(found)


def all_methods() -> list[dict[str, Any]]:
    """Every method as plain values."""
    from engine.registry import METHODS, describe, method_names

    return [
        {
            "name": name,
            "summary": METHODS[name].summary,
            "needs_draft": METHODS[name].needs_draft,
            "training": METHODS[name].training,
            "children": [str(kind) for kind in METHODS[name].children],
            "options": [info._asdict() for info in describe(name)],
        }
        for name in method_names()
    ]


def _print(found: list[dict[str, Any]]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from workbench.terminal import out

    for method in found:
        out().print(Text(method["name"], style="bold") + Text(f"  {method['summary']}"))
        table = Table.grid(padding=(0, 2))
        for info in method["options"]:
            table.add_row(
                Text(info["name"], style="cyan"),
                Text(info["type"], style="dim"),
                _default(info["default"]),
                Text(info["help"] + _allowed(info)),
            )
        if method["options"]:
            out().print(Padding(table, (0, 0, 0, 2)))
        out().print()
    out().print(Text("Set one with --option NAME=VALUE.", style="dim"))


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "-" if value in (None, "") else str(value)


def _allowed(info: dict[str, Any]) -> str:
    if info["choices"]:
        return f" ({', '.join(info['choices'])})"
    low, high = info["min"], info["max"]
    if low is not None and high is not None:
        return f" ({low:g} to {high:g})"
    return f" ({low:g} or more)" if low is not None else ""
