"""Entry of `draftree`. Commands are imported when they are called, so that help is instant.

Exit codes: 0, 1 for a run that failed, 2 for wrong input, 130 after Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from engine.errors import DecodeError, UserError

#: command -> (where it lives, one line of help)
COMMANDS = {
    "run": ("workbench.commands.run:run", "Decode a prompt or a workload, and keep every step."),
    "load": (
        "workbench.commands.load:load",
        "Let requests come as they would to a server, and see who waits and who had what.",
    ),
    "compare": (
        "workbench.commands.compare:compare",
        "Measure methods against plain decoding on the same prompts.",
    ),
    "experiments": (
        "workbench.commands.experiments:experiments_app",
        "Comparisons on published pairs, stored for anyone to start.",
    ),
    "sweep": (
        "workbench.commands.sweep:sweep",
        "Measure every combination of options, cell by cell; can be stopped and gone on with.",
    ),
    "tune": (
        "workbench.commands.tune:tune",
        "Search a method's options for a pair and a workload; can be stopped and gone on with.",
    ),
    "methods": ("workbench.commands.methods:methods", "List the methods and their options."),
    "runs": ("workbench.commands.runs:runs", "List the stored runs."),
    "show": ("workbench.commands.show:show", "Look into a run; with --step, the tree as text."),
    "whatif": (
        "workbench.commands.whatif:whatif",
        "Ask what other static trees would have accepted on a run.",
    ),
    "report": ("workbench.commands.report:report", "Write a report on runs as one HTML file."),
    "export": (
        "workbench.commands.export:export",
        "Write a run's tables as Parquet, CSV or JSON files.",
    ),
    "query": ("workbench.commands.query:query", "Ask stored runs a question in SQL."),
    "profile": (
        "workbench.commands.profile:profile",
        "Measure a pair on this machine, for policy auto and for you.",
    ),
    "compile": (
        "workbench.commands.compile:compile_pair",
        "Compile a pair's forwards for this machine, once.",
    ),
    "train": (
        "workbench.commands.train:train_app",
        "Train a model pair of your own, or heads for a target.",
    ),
    "doctor": (
        "workbench.commands.doctor:doctor",
        "Check this machine: what is missing and what to type.",
    ),
    "app": ("workbench.commands.app:app", "Open the workbench in the browser."),
}
INTERRUPTED = 130
#: usage errors of the parser, whichever package it lives in
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[2])


class LazyGroup(TyperGroup):
    """Knows its commands by name and one line; imports the one that is called."""

    _listing = False

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name=name, help=line) for name, (_, line) in COMMANDS.items()
        }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        placeholder = super().get_command(ctx, cmd_name)
        if placeholder is None or self._listing or ctx.resilient_parsing:
            return placeholder
        return load_command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def load_command(name: str) -> Any:
    """Import a command: a function, or a Typer of its own with subcommands."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, rich_markup_mode="markdown")
        found.command(name)(function)
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def draftree(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Tree-based speculative decoding: run it, see every draft tree, measure whether it pays.

    Start with `draftree app`, or `draftree run --prompt "def main("`.
    """
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            typer.echo(f"draftree {version_of('draftree')}")
        except PackageNotFoundError:
            typer.echo("draftree, run from a folder without being installed")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """The console command."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors become a sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    as_json = "--json" in arguments
    try:
        command = typer.main.get_command(app)
        code = command.main(args=arguments, prog_name="draftree", standalone_mode=False)
        sys.stdout.flush()
    except (UserError, DecodeError) as error:
        return _failed(str(error), 2 if isinstance(error, UserError) else 1, as_json=as_json)
    except _USAGE_ERROR as error:
        return _failed(_usage_sentence(error), 2, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _failed(message: str, code: int, *, as_json: bool) -> int:
    from workbench.terminal import complain, print_json

    complain(message)
    if as_json:
        print_json({"error": message, "exit_code": code})
    return code


def _usage_sentence(error: Any) -> str:
    message = error.format_message().rstrip(".")
    where = error.ctx.command_path if getattr(error, "ctx", None) else "draftree"
    return f"{message}{'' if message.endswith('?') else '.'} See `{where} --help`."


if __name__ == "__main__":
    main()
