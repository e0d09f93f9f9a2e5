"""`draftree train`: make models. The work is done in `engine.training`."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands.train_bytes import train_bytes
from workbench.commands.train_display import Display, Interrupt, command_line, parse_shape
from workbench.commands.train_heads import command as train_head_command
from workbench.commands.train_ngram import ngram

train_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Train a model pair of your own, a draft of bytes, the n-gram stage, or a target's heads.",
)


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
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of training for the target instead of minutes: repeats bit for bit.", min=1
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Go on from this target, with its tokenizer and shape: embedded name, folder or "
            "hub id.",
        ),
    ] = None,
    layer_dropout: Annotated[
        float,
        typer.Option(
            help="Chance to leave out the target's last layer while it trains, less for lower "
            "ones: prepares it for early-exit and layer-skip. 0.1 or 0.2.",
        ),
    ] = 0.0,
    exit_loss: Annotated[
        float,
        typer.Option(
            help="Weight of the loss at exits after the target's lower layers: prepares it for "
            "early-exit. 1 or 2."
        ),
    ] = 0.0,
    draft: Annotated[
        bool, typer.Option(help="Make a draft; without one the target's folder is NAME.")
    ] = True,
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
        str | None,
        typer.Option(
            help="Target as LAYERSxHIDDENxHEADSxINTERMEDIATE; 8x384x6x1024 without it.",
            show_default=False,
        ),
    ] = None,
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

    With layer dropout and an early-exit loss the target learns to say after a few layers what it
    will say after all: then early-exit can draft with it, and a draft is not needed.

    Examples:

        draftree train pair --minutes 60

        draftree train pair --from pycode-target --layer-dropout 0.1 --exit-loss 2 --no-draft
        --name my-exit --minutes 60
    """
    # Threads that spin while they wait halve the speed of a machine others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from engine.errors import UserError
    from engine.training.exits import ExitRecipe
    from engine.training.models import TARGET_SHAPE
    from engine.training.pair import PairRecipe, choose_device, train_pair
    from engine.training.progress import Budget, TrainingStopped

    if not resume:
        _clear(work_dir)
    stop = Interrupt()
    try:
        if start and target_shape:
            raise ValueError(
                "--target-shape and --from exclude each other: the target keeps its shape"
            )
        recipe = PairRecipe(
            target_budget=Budget(tokens=tokens) if tokens else Budget(minutes=minutes),
            teacher_budget=Budget(minutes=draft_minutes / 2),
            draft_budget=Budget(minutes=draft_minutes / 2),
            target_shape=(
                parse_shape(target_shape, "--target-shape") if target_shape else TARGET_SHAPE
            ),
            start=start,
            exits=ExitRecipe(layer_dropout=layer_dropout, exit_loss=exit_loss),
            draft=draft,
            draft_shape=parse_shape(draft_shape, "--draft-shape"),
            texts=tuple(text or ()),
            device=choose_device(device, threads=threads),
            seed=seed,
        )
        with Display(quiet=as_json) as display, stop:
            record = train_pair(
                recipe,
                work_dir=work_dir,
                out=out,
                name=name,
                command=command_line(),
                on_progress=display.show,
                should_stop=lambda: stop.asked,
            )
    except TrainingStopped:
        typer.echo(
            f"Stopped. All is kept in {work_dir}; the same command goes on from there.", err=True
        )
        raise typer.Exit(130) from None
    except (ValueError, UserError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    _report(record, out=out, name=name, draft=draft, as_json=as_json)


def _report(record: dict[str, Any], *, out: Path, name: str, draft: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(record))
        return
    losses = ", ".join(f"{who} {loss:.3f}" for who, loss in record["held_out_loss"].items())
    typer.echo(f"Held-out loss: {losses} nats a token")
    for workload, a in record.get("agreement", {}).items():
        figures = (
            "every continuation loops"
            if a["tokens_per_step"] is None
            else f"first choice {a['top1']:.1%}, {a['tokens_per_step']:.2f} tokens per step"
        )
        if a["opening_tokens_per_step"] is not None:
            figures += f", {a['opening_tokens_per_step']:.2f} before the text repeats itself"
        typer.echo(f"{workload}: {figures} ({a['loops']} of {a['prompts']} loop)")
    for exit_ in record.get("exits", {}).get("trained", []):
        typer.echo(
            f"Exit after layer {exit_['layer']}: loss {exit_['loss']:.3f}, "
            f"first choice that of all layers {exit_['agreement']:.1%}"
        )
    written = [f"{name}-{role}" for role in record["parameters"]] if draft else [name]
    typer.echo("Wrote " + " and ".join(str(out / folder) for folder in written))


def _clear(work_dir: Path) -> None:
    """Remove what the recipe keeps in its work folder, and nothing else."""
    from engine.training.claims import discard

    discard(work_dir, ["corpus", "target.pt", "teacher", "draft.pt"])


train_app.command("bytes")(train_bytes)
train_app.command("ngram")(ngram)
for kind in ("medusa", "kangaroo", "eagle"):
    train_app.command(kind)(train_head_command(kind))

logging.getLogger("engine.training").addHandler(logging.NullHandler())
