"""Options of commands: groups of flags, and a help for every one that fits a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from workbench import cli
from workbench.commands.flags import given_flags
from workbench.commands.groups import Flags, grouped

WIDTH = 100


@dataclass(frozen=True)
class Drawing(Flags, panel="Drawing"):
    """A group with a panel."""

    top_k: Annotated[int, typer.Option(help="Most likely ones only.", min=1)] = 5
    again: Annotated[list[str] | None, typer.Option("--once-more", help="Repeatable.")] = None
    threads: Annotated[int, typer.Option(help="Elsewhere.", rich_help_panel="Machine")] = 1


@dataclass(frozen=True)
class Judging(Drawing):
    """One with more, in the same panel."""

    strict: Annotated[bool, typer.Option("--strict/--lenient", help="Or not.")] = True


@dataclass(frozen=True)
class Files(Flags):
    """A group without a panel."""

    save: Annotated[str | None, typer.Option(help="There.")] = None


def _app(found: list[Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    @grouped
    def draw(
        ctx: typer.Context,
        *,
        what: Annotated[str, typer.Argument(help="What.")],
        drawing: Judging,
        times: Annotated[int, typer.Option(help="So often.")] = 1,
        files: Files,
    ) -> None:
        """Draw."""
        found[:] = [what, drawing, times, files, given_flags(ctx)]

    return app


def test_a_group_gets_what_was_typed() -> None:
    found: list[Any] = []
    words = ["x", "--top-k", "3", "--once-more", "a", "--once-more", "b", "--lenient", "--times=2"]
    assert CliRunner().invoke(_app(found), words).exit_code == 0
    drawing = Judging(top_k=3, again=["a", "b"], strict=False)
    assert found[:4] == ["x", drawing, 2, Files()]
    assert found[4] == {"what", "top_k", "again", "strict", "times"}


def test_flags_stand_in_the_panel_of_their_group_unless_they_name_one() -> None:
    command = typer.main.get_command(_app([]))
    panels = {one.name: getattr(one, "rich_help_panel", None) for one in command.params}
    assert panels == {
        "what": None, "top_k": "Drawing", "again": "Drawing", "threads": "Machine",
        "strict": "Drawing", "times": None, "save": None,
    }  # fmt: skip
    assert list(panels) == ["what", "top_k", "again", "threads", "strict", "times", "save"]
    assert Drawing.panel == "Drawing"
    assert Files.panel is None


def test_a_wrong_value_names_the_flag() -> None:
    result = CliRunner().invoke(_app([]), ["x", "--top-k", "0"])
    assert result.exit_code == 2
    assert "--top-k" in result.stderr


def _with_subcommands(name: str) -> Iterator[tuple[str, Any]]:
    command = cli.load_command(name)
    yield name, command
    for inside, one in getattr(command, "commands", {}).items():
        yield f"{name} {inside}", one


@pytest.mark.parametrize("top", cli.COMMANDS)
def test_every_option_has_a_help_that_fits(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", WIDTH)
    for name, command in _with_subcommands(top):
        shown = CliRunner().invoke(cli.app, [*name.split(), "--help"])
        assert shown.exit_code == 0
        assert max(map(len, shown.output.splitlines())) <= WIDTH
        for option in command.params:
            assert option.help, f"{name}: {option.name} says nothing"
            for flag in option.opts if option.param_type_name == "option" else ():
                assert f"{flag} " in shown.output, f"{name}: {flag} is cut at {WIDTH} columns"
