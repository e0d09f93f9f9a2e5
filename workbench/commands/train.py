"""`draftree train`: make models. The work is done in `engine.training`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands.train_ngram import ngram

if TYPE_CHECKING:
    from engine.training.progress import PairProgress

train_app = typer.Typer(
    no_args_is_help=True, help="Train a model pair of your own, or the counts of the n-gram stage."
)

_PHASES = {
    "corpus": "Reading sources",
    "tokenizer": "Tokenizer and encoding",
    "target": "Target",
    "generate": "Target writes for the draft",
    "distil": "Draft learns",
    "evaluate": "Measuring",
}


@train_app.command("pair")
def pair(
    out: Annotated[Path, typer.Option(help="Folder that gets NAME-target and NAME-draft.")] = Path(
        "models"
    ),
    name: Annotated[str, typer.Option(help="First part of the models' names.")] = "pycode",
    minutes: Annotated[
        float, typer.Option(help="Minutes of training for the target.", min=0.01)
    ] = 88.0,
    draft_minutes: Annotated[
        float,
        typer.Option(
            help="Minutes for the draft: half the target writes, half it learns.", min=0.01
        ),
    ] = 20.0,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Train on this UTF-8 file or folder instead of the Python standard library; "
            "may be given several times."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or auto: a GPU makes a far better pair in minutes.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; all cores by default.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and of the order of text.")] = 0,
    resume: Annotated[
        bool, typer.Option(help="Go on from the work folder, or throw away what is in it.")
    ] = True,
    work_dir: Annotated[
        Path, typer.Option(help="Folder for checkpoints and encoded text (a few hundred MB).")
    ] = Path("runs/train-pair"),
    target_shape: Annotated[
        str, typer.Option(help="Target as LAYERSxHIDDENxHEADSxINTERMEDIATE.")
    ] = "8x384x6x1024",
    draft_shape: Annotated[
        str, typer.Option(help="Draft as LAYERSxHIDDENxHEADSxINTERMEDIATE.")
    ] = "2x192x3x512",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all figures at the end.")
    ] = False,
) -> None:
    """Train a target and distil a draft from it, with their tokenizer and model cards.

    Learning rate, depth and window follow the clock, so training ends annealed when the minutes
    are over, on any machine. Ctrl-C keeps everything: the same command goes on from there.
    """
    # Threads that spin while they wait halve the speed of a machine others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from engine.training.pair import PairRecipe, choose_device, train_pair
    from engine.training.progress import Budget, TrainingStopped

    if not resume:
        _clear(work_dir)
    stop = _Interrupt()
    try:
        recipe = PairRecipe(
            target_budget=Budget(minutes=minutes),
            teacher_budget=Budget(minutes=draft_minutes / 2),
            draft_budget=Budget(minutes=draft_minutes / 2),
            target_shape=_shape(target_shape, "--target-shape"),
            draft_shape=_shape(draft_shape, "--draft-shape"),
            texts=tuple(text or ()),
            device=choose_device(device, threads=threads),
            seed=seed,
        )
        with _Display(quiet=as_json) as display, stop:
            record = train_pair(
                recipe,
                work_dir=work_dir,
                out=out,
                name=name,
                command=_command_line(),
                on_progress=display.show,
                should_stop=lambda: stop.asked,
            )
    except TrainingStopped:
        typer.echo(
            f"Stopped. All is kept in {work_dir}; the same command goes on from there.", err=True
        )
        raise typer.Exit(130) from None
    except ValueError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    _report(record, out=out, name=name, as_json=as_json)


class _Interrupt:
    """Turns the first Ctrl-C into a request; a second one interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> _Interrupt:
        self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._previous)


class _Display:
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

    def __enter__(self) -> _Display:
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


def _report(record: dict[str, Any], *, out: Path, name: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(record))
        return
    loss = record["held_out_loss"]
    typer.echo(
        f"Held-out loss: target {loss['target']:.3f}, draft {loss['draft']:.3f} nats a token"
    )
    for workload, a in record["agreement"].items():
        figures = (
            "every continuation loops"
            if a["tokens_per_step"] is None
            else f"first choice {a['top1']:.1%}, {a['tokens_per_step']:.2f} tokens per step"
        )
        if a["opening_tokens_per_step"] is not None:
            figures += f", {a['opening_tokens_per_step']:.2f} before the text repeats itself"
        typer.echo(f"{workload}: {figures} ({a['loops']} of {a['prompts']} loop)")
    typer.echo(f"Wrote {out / (name + '-target')} and {out / (name + '-draft')}")


def _shape(text: str, option: str) -> Any:
    from engine.training.models import ModelShape

    try:
        layers, hidden, heads, intermediate = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ValueError(
            f"{option} is {text!r}; write layers x hidden x heads x intermediate like 8x384x6x1024"
        ) from None
    return ModelShape(layers=layers, hidden=hidden, heads=heads, intermediate=intermediate)


def _clear(work_dir: Path) -> None:
    """Remove what the recipe keeps in its work folder, and nothing else."""
    from engine.training.claims import discard

    discard(work_dir, ["corpus", "target.pt", "teacher", "draft.pt"])


def _command_line() -> str:
    return " ".join(["draftree", *sys.argv[1:]])


train_app.command("ngram")(ngram)

logging.getLogger("engine.training").addHandler(logging.NullHandler())
