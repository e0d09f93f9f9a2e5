"""What the training commands share: flags, progress, an interrupt that keeps everything."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.groups import Flags

if TYPE_CHECKING:
    from engine.training.progress import PairProgress

_PHASES = {
    "corpus": "Reading sources",
    "tokenizer": "Tokenizer and encoding",
    "target": "Target",
    "generate": "Target writes",
    "draft": "Draft learns",
    "distil": "Draft learns",
    "ngram": "Counting an n-gram",
    "head": "Head learns",
    "evaluate": "Measuring",
}

TextsFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--text",
        help="Train on this UTF-8 file or folder instead of the Python standard library; "
        "may be given several times.",
    ),
]
SeedFlag = Annotated[int, typer.Option("--seed", help="Seed of weights and of the order of text.")]
ResumeFlag = Annotated[
    bool, typer.Option(help="Go on from the work folder, or throw away what is in it.")
]
WorkFlag = Annotated[
    Path, typer.Option(help="Folder for checkpoints and encoded text (a few hundred MB).")
]
RecordFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object with all figures at the end.")
]


@dataclass(frozen=True)
class BeginFlags(Flags):
    """How a model of one's own begins."""

    threads: Annotated[
        int | None, typer.Option(help="Processor threads; all cores by default.", min=1)
    ] = None
    seed: SeedFlag = 0
    resume: ResumeFlag = True


def prepare_process() -> None:
    """Set what must be set before torch loads."""
    # Threads that spin while they wait halve the speed of a machine others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def training(
    work_dir: Path, *, quiet: bool, worded: Callable[[str], str] = str
) -> Iterator[dict[str, Any]]:
    """Progress and an interrupt, as recipes take them; what ends one early becomes a sentence.

    Raises UserError for what a recipe refuses, in words that `worded` may change.
    """
    from engine.training.progress import TrainingStopped

    stop = Interrupt()
    try:
        with Display(quiet=quiet) as display, stop:
            yield {
                "command": " ".join(["draftree", *sys.argv[1:]]),
                "on_progress": display.show,
                "should_stop": lambda: stop.asked,
            }
    except TrainingStopped:
        typer.echo(
            f"Stopped. All is kept in {work_dir}; the same command goes on from there.", err=True
        )
        raise typer.Exit(130) from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(worded(str(error))) from None


class Interrupt:
    """Turns the first Ctrl-C into a request; a second one interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._previous)


class Display:
    """A bar per phase on a terminal, a line per tenth elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._quiet = quiet
        self._console = Console(stderr=True)
        self._tasks: dict[str, Any] = {}
        self._tenth: dict[str, int] = {}
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>5.1f}%"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, progress: PairProgress) -> None:
        """Show a sign of life from the recipe."""
        title, note = _PHASES.get(progress.phase, progress.phase), _note(progress)
        if self._quiet:
            return
        if self._bars.disable:
            tenth = int(10 * progress.fraction)
            if self._tenth.get(progress.phase) != tenth:
                self._tenth[progress.phase] = tenth
                typer.echo(f"{title}: {progress.fraction:.0%} {note}", err=True)
            return
        if progress.phase not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, completed=1.0)
            self._tasks[progress.phase] = self._bars.add_task(title, total=1.0, note=note)
        self._bars.update(self._tasks[progress.phase], completed=progress.fraction, note=note)


def _note(progress: PairProgress) -> str:
    parts = []
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.tokens:
        parts.append(f"{progress.tokens / 1e6:.2f}M tokens")
    if progress.tokens_per_second:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    return ", ".join([*parts, progress.message] if progress.message else parts)


def parse_shape(text: str, option: str) -> Any:
    """A model's shape as it is typed. Raises ValueError."""
    from engine.training.models import ModelShape

    try:
        layers, hidden, heads, intermediate = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ValueError(
            f"{option} is {text!r}; write layers x hidden x heads x intermediate like 8x384x6x1024"
        ) from None
    return ModelShape(layers=layers, hidden=hidden, heads=heads, intermediate=intermediate)
