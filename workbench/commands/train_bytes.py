"""`draftree train bytes`: a draft of bytes, for the method universal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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


@dataclass(frozen=True)
class LearningFlags(Flags):
    """How long it learns, and what."""

    minutes: Annotated[float, typer.Option(help="Minutes of training.", min=0.01)] = 30.0
    writing_minutes: Annotated[
        float, typer.Option(help="Minutes before, in which the target writes for it.", min=0.01)
    ] = 8.0
    target: Annotated[
        str, typer.Option(help="Whose text it learns at the end: embedded name, folder or hub id.")
    ] = "pycode-target"
    text: TextsFlag = None
    shape: Annotated[str, typer.Option(help="As LAYERSxHIDDENxHEADSxINTERMEDIATE.")] = "2x192x3x512"
    context: Annotated[int, typer.Option(help="Bytes of text it can see.", min=256)] = 2048
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto"


@grouped
def train_bytes(
    *,
    out: Annotated[Path, typer.Option(help="Folder that gets the model's own.")] = Path("models"),
    name: Annotated[str, typer.Option(help="The model's name.")] = "pycode-bytes",
    learning: LearningFlags,
    begin: BeginFlags,
    work_dir: WorkFlag = Path("runs/train-bytes"),
    as_json: RecordFlag = False,
) -> None:
    """Train a draft whose tokens are bytes: the method universal drafts with it for any target.

    It reads the corpus of `draftree train pair` byte by byte, then text that the target wrote.
    Ctrl-C keeps everything: the same command goes on from there.

    Examples:

        draftree train bytes --minutes 60

        draftree train bytes --target ./my-model --text ./my-sources --name my-bytes

        draftree run -m universal --target ./my-model --draft models/my-bytes -p "def "
    """
    prepare_process()
    from engine.training.claims import discard
    from engine.training.progress import Budget
    from engine.training.recipe import choose_device
    from engine.training.text_draft import TextDraftRecipe, train_text_draft

    if not begin.resume:
        discard(work_dir, ["corpus", "target", "teacher", "draft.pt"])
    with training(work_dir, quiet=as_json) as how:
        recipe = TextDraftRecipe(
            budget=Budget(minutes=learning.minutes),
            writing_budget=Budget(minutes=learning.writing_minutes),
            target=learning.target,
            shape=parse_shape(learning.shape, "--shape"),
            context=learning.context,
            texts=tuple(learning.text or ()),
            device=choose_device(learning.device, threads=begin.threads),
            seed=begin.seed,
        )
        record = train_text_draft(recipe, work_dir=work_dir, out=out / name, **how)
    if as_json:
        typer.echo(json.dumps(record))
    else:
        _report(record, out / name)


def _report(record: dict[str, Any], folder: Path) -> None:
    loss = record["held_out_loss"]
    typer.echo(f"Held-out loss: target {loss['target']:.3f}, draft {loss['draft']:.3f} nats a byte")
    for workload, a in record["agreement"].items():
        if a["opening_tokens_per_step"] is not None:
            typer.echo(
                f"{workload}: {a['opening_tokens_per_step']:.2f} tokens per step before the text "
                f"repeats itself ({a['loops']} of {a['prompts']} loop)"
            )
    typer.echo(f"Wrote {folder}")
