"""`draftree train medusa`, `kangaroo`, `eagle`: heads that read the target's hidden states."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import JsonFlag, TargetFlag, ThreadsFlag
from workbench.commands.train_display import Display, Interrupt, command_line
from workbench.commands.train_heads_options import (
    default_name,
    kind_options,
    prepare_process,
    prompts_of,
    sentence,
    usable_dtype,
)

TEXT, TRAINING = "Text", "Training"

_INTRODUCTIONS = {
    "medusa": """Train Medusa heads: each guesses one token further from the target's last state.

    Options (`--option NAME=VALUE`): num_heads (4), num_layers (1), tied (true: the target's own LM
    head behind every head; false: one each, far larger files), projection (true: a matrix of its
    own before a tied LM head), hard (0.5: weight of the text's token against the target's
    distribution).
    """,
    "kangaroo": """Train Kangaroo's adapter: with it, the target's first layers draft.

    Options (`--option NAME=VALUE`): exit_layer (2: layers that run before the adapter).
    """,
    "eagle": """Train an EAGLE head: a decoder layer over the target's hidden states.

    Options (`--option NAME=VALUE`): steps (4: how many tokens ahead it learns to roll on), heads,
    intermediate (sizes; the target's own unless given), hard (0: weight of the text's token
    against the target's distribution).
    """,
}
#: which learnt more from the same tokens, for the embedded target
_OPTIMISERS = {"medusa": "adamw", "kangaroo": "adamw", "eagle": "muon"}
_REST = """
    Half of what it reads is the Python standard library (or --text), half is what the target
    itself writes after such text. Ctrl-C keeps everything: the same command goes on from there.

    Examples:

        draftree train {kind} --minutes 20

        draftree train {kind} --target ./my-model --text ./my-sources --tokens 5000000

        draftree run -m {kind} --option head=heads/pycode-{kind} -p "def "
    """


def command(kind: str) -> Callable[..., None]:
    """The command that trains heads of a kind."""

    def train(
        target: TargetFlag = None,
        text: Annotated[
            list[Path] | None,
            typer.Option(
                help="Train on this UTF-8 file or folder instead of the Python standard library; "
                "may be given several times.",
                rich_help_panel=TEXT,
            ),
        ] = None,
        workload: Annotated[
            str | None,
            typer.Option(
                "--workload",
                "-w",
                help="Train on the prompts of this workload, and what the target makes of them.",
                rich_help_panel=TEXT,
            ),
        ] = None,
        written: Annotated[
            int,
            typer.Option(
                help="Tokens that the target writes for its head; 0: none.",
                min=0,
                rich_help_panel=TEXT,
            ),
        ] = 200_000,
        out: Annotated[Path, typer.Option(help="Folder that gets the head's own.")] = Path("heads"),
        name: Annotated[
            str | None, typer.Option(help="The head's name. [default: TARGET-KIND]")
        ] = None,
        minutes: Annotated[
            float | None,
            typer.Option(
                help="Minutes of training. [default: 20]", min=0.01, rich_help_panel=TRAINING
            ),
        ] = None,
        tokens: Annotated[
            int | None,
            typer.Option(
                help="Tokens to train on; unlike minutes, the same weights each time.",
                min=1,
                rich_help_panel=TRAINING,
            ),
        ] = None,
        length: Annotated[
            int, typer.Option(help="Tokens of a row.", min=8, rich_help_panel=TRAINING)
        ] = 256,
        rows: Annotated[
            int, typer.Option(help="Rows of a pass.", min=1, rich_help_panel=TRAINING)
        ] = 4,
        accumulate: Annotated[
            int,
            typer.Option(
                help="Passes whose gradients make a step.", min=1, rich_help_panel=TRAINING
            ),
        ] = 1,
        optimiser: Annotated[
            str,
            typer.Option(
                help="adamw, or muon for the matrices inside the head.",
                rich_help_panel=TRAINING,
            ),
        ] = _OPTIMISERS[kind],
        lr: Annotated[
            float | None,
            typer.Option(
                help="Largest learning rate. [default: 0.02 for muon, 0.003 for adamw]",
                min=0.0,
                rich_help_panel=TRAINING,
            ),
        ] = None,
        patience: Annotated[
            int,
            typer.Option(
                help="Looks at held-out text without a better one that end it; 0: none does.",
                min=0,
                rich_help_panel=TRAINING,
            ),
        ] = 0,
        option: Annotated[
            list[str] | None,
            typer.Option(
                "--option", "-o", metavar="NAME=VALUE", help="An option of the kind; repeatable."
            ),
        ] = None,
        dtype: Annotated[
            str,
            typer.Option(
                help="float32, or bfloat16: mixed precision, twice as fast where it is at home."
            ),
        ] = "float32",
        device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
        threads: ThreadsFlag = None,
        seed: Annotated[int, typer.Option(help="Seed of weights and of the order of text.")] = 0,
        resume: Annotated[
            bool, typer.Option(help="Go on from the work folder, or throw away what is in it.")
        ] = True,
        work_dir: Annotated[
            Path | None,
            typer.Option(help="Folder for checkpoint, log and text. [default: runs/train-KIND]"),
        ] = None,
        text_dir: Annotated[
            Path | None,
            typer.Option(
                help="Folder for the text alone, for several kinds to share. [default: --work-dir]"
            ),
        ] = None,
        as_json: JsonFlag = False,
    ) -> None:
        prepare_process(dtype, device)
        from engine.training.heads import HeadRecipe
        from engine.training.make_head import HeadJob, make_head, start_over
        from engine.training.pair import choose_device
        from engine.training.progress import Budget, TrainingStopped

        work = work_dir or Path(f"runs/train-{kind}")
        folder = out / (name or default_name(kind, target))
        if text and workload is not None:
            raise UserError("--text and --workload exclude each other: give one of them.")
        if not resume:
            start_over(work)
        stop = Interrupt()
        try:
            chosen = choose_device(device, threads=threads)
            job = HeadJob(
                kind=kind,
                target=target or "pycode-target",
                options=kind_options(kind, option or []),
                texts=tuple(text or ()),
                prompts=prompts_of(workload),
                written_tokens=written,
                recipe=HeadRecipe(
                    budget=Budget(
                        minutes=20.0 if minutes is None and tokens is None else minutes,
                        tokens=tokens,
                    ),
                    length=length, rows=rows, accumulate=accumulate, patience=patience,
                    optimiser=optimiser,
                    lr=(0.02 if optimiser == "muon" else 3e-3) if lr is None else lr,
                    dtype=usable_dtype(dtype, chosen), device=chosen, seed=seed,
                ),
            )  # fmt: skip
            with Display(quiet=as_json) as display, stop:
                card = make_head(
                    job,
                    work_dir=work,
                    text_dir=text_dir,
                    out=folder,
                    command=command_line(),
                    on_progress=display.show,
                    should_stop=lambda: stop.asked,
                )
        except TrainingStopped:
            typer.echo(
                f"Stopped. All is kept in {work}; the same command goes on from there.", err=True
            )
            raise typer.Exit(130) from None
        except UserError:
            raise
        except ValueError as error:
            raise UserError(sentence(str(error))) from None
        if as_json:
            typer.echo(json.dumps(card))
        else:
            _report(card, folder)

    train.__doc__ = _INTRODUCTIONS[kind] + _REST.format(kind=kind)
    return train


def _report(card: dict[str, Any], folder: Path) -> None:
    for offset, found in card["held_out"].items():
        before, ngram = card["before"]["held_out"][offset], card["ngram"].get(offset)
        line = f"+{offset}: first guess right {found['top1']:.1%} (untrained {before['top1']:.1%}"
        line += f", an n-gram {ngram['top1']:.1%})" if ngram else ")"
        line += f", one of five {found['top5']:.1%}"
        if written := card["written"].get(offset):
            line += f"; of the target's own text {written['top1']:.1%} and {written['top5']:.1%}"
        typer.echo(line)
    typer.echo(f"Wrote {folder}")
