"""`draftree train bytes`: a draft of bytes, for the method universal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.commands.train_display import Display, Interrupt, command_line, parse_shape


def train_bytes(
    out: Annotated[Path, typer.Option(help="Folder that gets the model's own.")] = Path("models"),
    name: Annotated[str, typer.Option(help="The model's name.")] = "pycode-bytes",
    minutes: Annotated[float, typer.Option(help="Minutes of training.", min=0.01)] = 30.0,
    writing_minutes: Annotated[
        float, typer.Option(help="Minutes before, in which the target writes for it.", min=0.01)
    ] = 8.0,
    target: Annotated[
        str, typer.Option(help="Whose text it learns at the end: embedded name, folder or hub id.")
    ] = "pycode-target",
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Train on this UTF-8 file or folder instead of the Python standard library; "
            "may be given several times."
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option(help="As LAYERSxHIDDENxHEADSxINTERMEDIATE.")
    ] = "2x192x3x512",
    context: Annotated[int, typer.Option(help="Bytes of text it can see.", min=256)] = 2048,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; all cores by default.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and of the order of text.")] = 0,
    resume: Annotated[
        bool, typer.Option(help="Go on from the work folder, or throw away what is in it.")
    ] = True,
    work_dir: Annotated[
        Path, typer.Option(help="Folder for checkpoints and encoded text (a few hundred MB).")
    ] = Path("runs/train-bytes"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all figures at the end.")
    ] = False,
) -> None:
    """Train a draft whose tokens are bytes: the method universal drafts with it for any target.

    It reads the corpus of `draftree train pair` byte by byte, then text that the target wrote.
    Ctrl-C keeps everything: the same command goes on from there.

    Examples:

        draftree train bytes --minutes 60

        draftree train bytes --target ./my-model --text ./my-sources --name my-bytes

        draftree run -m universal --target ./my-model --draft models/my-bytes -p "def "
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from engine.errors import UserError
    from engine.training.claims import discard
    from engine.training.pair import choose_device
    from engine.training.progress import Budget, TrainingStopped
    from engine.training.text_draft import TextDraftRecipe, train_text_draft

    if not resume:
        discard(work_dir, ["corpus", "target", "teacher", "draft.pt"])
    stop = Interrupt()
    try:
        recipe = TextDraftRecipe(
            budget=Budget(minutes=minutes),
            writing_budget=Budget(minutes=writing_minutes),
            target=target,
            shape=parse_shape(shape, "--shape"),
            context=context,
            texts=tuple(text or ()),
            device=choose_device(device, threads=threads),
            seed=seed,
        )
        with Display(quiet=as_json) as display, stop:
            record = train_text_draft(
                recipe,
                work_dir=work_dir,
                out=out / name,
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
