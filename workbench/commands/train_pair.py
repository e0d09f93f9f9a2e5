"""`draftree train pair`: a target and its draft, from text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands.groups import Flags, grouped
from workbench.commands.train_display import (
    BeginFlags,
    RecordFlag,
    TextsFlag,
    WorkFlag,
    parse_shape,
    prepare_process,
    training,
)

if TYPE_CHECKING:
    from engine.training.pair import PairRecipe


@dataclass(frozen=True)
class LearningFlags(Flags):
    """How long they learn, and what."""

    minutes: Annotated[
        float, typer.Option(help="Minutes of training for the target.", min=0.01)
    ] = 88.0
    draft_minutes: Annotated[
        float,
        typer.Option(
            help="Minutes for the draft: half the target writes, half it learns.", min=0.01
        ),
    ] = 20.0
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of training for the target instead of minutes: repeats bit for bit.", min=1
        ),
    ] = None
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Go on from this target, with its tokenizer and shape: embedded name, folder or "
            "hub id.",
        ),
    ] = None
    layer_dropout: Annotated[
        float,
        typer.Option(
            help="Chance to leave out the target's last layer while it trains, less for lower "
            "ones: prepares it for early-exit and layer-skip. 0.1 or 0.2.",
        ),
    ] = 0.0
    exit_loss: Annotated[
        float,
        typer.Option(
            help="Weight of the loss at exits after the target's lower layers: prepares it for "
            "early-exit. 1 or 2."
        ),
    ] = 0.0
    draft: Annotated[
        bool, typer.Option(help="Make a draft; without one the target's folder is NAME.")
    ] = True
    text: TextsFlag = None
    device: Annotated[
        str, typer.Option(help="cpu, cuda or auto: a GPU makes a far better pair in minutes.")
    ] = "auto"


@dataclass(frozen=True)
class ShapeFlags(Flags):
    """How large they are."""

    target_shape: Annotated[
        str | None,
        typer.Option(
            help="Target as LAYERSxHIDDENxHEADSxINTERMEDIATE; 8x384x6x1024 without it.",
            show_default=False,
        ),
    ] = None
    draft_shape: Annotated[str, typer.Option(help="Draft as LAYERSxHIDDENxHEADSxINTERMEDIATE.")] = (
        "2x192x3x512"
    )


@grouped
def pair(
    *,
    out: Annotated[Path, typer.Option(help="Folder that gets NAME-target and NAME-draft.")] = Path(
        "models"
    ),
    name: Annotated[str, typer.Option(help="First part of the models' names.")] = "pycode",
    learning: LearningFlags,
    begin: BeginFlags,
    work_dir: WorkFlag = Path("runs/train-pair"),
    shapes: ShapeFlags,
    as_json: RecordFlag = False,
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
    prepare_process()
    from engine.training.claims import discard
    from engine.training.pair import train_pair

    if not begin.resume:
        discard(work_dir, ["corpus", "target.pt", "teacher", "draft.pt"])
    with training(work_dir, quiet=as_json) as how:
        recipe = _recipe(learning, begin, shapes)
        record = train_pair(recipe, work_dir=work_dir, out=out, name=name, **how)
    if as_json:
        typer.echo(json.dumps(record))
    else:
        _report(record, out=out, name=name, draft=learning.draft)


def _recipe(learning: LearningFlags, begin: BeginFlags, shapes: ShapeFlags) -> PairRecipe:
    """What was typed as a recipe. Raises ValueError."""
    from engine.training.exits import ExitRecipe
    from engine.training.models import TARGET_SHAPE
    from engine.training.pair import PairRecipe
    from engine.training.progress import Budget
    from engine.training.recipe import choose_device

    if learning.start and shapes.target_shape:
        raise ValueError("--target-shape and --from exclude each other: the target keeps its shape")
    shape = shapes.target_shape
    tokens = learning.tokens
    half = Budget(minutes=learning.draft_minutes / 2)
    return PairRecipe(
        target_budget=Budget(tokens=tokens) if tokens else Budget(minutes=learning.minutes),
        teacher_budget=half,
        draft_budget=half,
        target_shape=parse_shape(shape, "--target-shape") if shape else TARGET_SHAPE,
        start=learning.start,
        exits=ExitRecipe(layer_dropout=learning.layer_dropout, exit_loss=learning.exit_loss),
        draft=learning.draft,
        draft_shape=parse_shape(shapes.draft_shape, "--draft-shape"),
        texts=tuple(learning.text or ()),
        device=choose_device(learning.device, threads=begin.threads),
        seed=begin.seed,
    )


def _report(record: dict[str, Any], *, out: Path, name: str, draft: bool) -> None:
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
