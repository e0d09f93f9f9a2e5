"""`draftree train medusa`, `kangaroo`, `eagle`: heads that read the target's hidden states."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import JsonFlag, TargetFlag
from workbench.commands.groups import grouped
from workbench.commands.train_display import training
from workbench.commands.train_heads_options import (
    TRAINING,
    PassFlags,
    PlaceFlags,
    RateFlags,
    TextFlags,
    default_name,
    kind_options,
    prepare_for,
    prompts_of,
    recipe_of,
    sentence,
)

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

    @grouped
    def train(
        *,
        target: TargetFlag = None,
        source: TextFlags,
        out: Annotated[Path, typer.Option(help="Folder that gets the head's own.")] = Path("heads"),
        name: Annotated[
            str | None, typer.Option(help="The head's name. [default: TARGET-KIND]")
        ] = None,
        passes: PassFlags,
        optimiser: Annotated[
            str,
            typer.Option(
                help="adamw, or muon for the matrices inside the head.", rich_help_panel=TRAINING
            ),
        ] = _OPTIMISERS[kind],
        rate: RateFlags,
        option: Annotated[
            list[str] | None,
            typer.Option(
                "--option", "-o", metavar="NAME=VALUE", help="An option of the kind; repeatable."
            ),
        ] = None,
        place: PlaceFlags,
        as_json: JsonFlag = False,
    ) -> None:
        prepare_for(place.dtype, place.device)
        from engine.training.make_head import HeadJob, make_head, start_over

        work = place.work_dir or Path(f"runs/train-{kind}")
        folder = out / (name or default_name(kind, target))
        if source.text and source.workload is not None:
            raise UserError("--text and --workload exclude each other: give one of them.")
        if not place.resume:
            start_over(work)
        with training(work, quiet=as_json, worded=sentence) as how:
            job = HeadJob(
                kind=kind,
                target=target or "pycode-target",
                options=kind_options(kind, option or []),
                texts=tuple(source.text or ()),
                prompts=prompts_of(source.workload),
                written_tokens=source.written,
                recipe=recipe_of(passes, rate, place, optimiser),
            )
            card = make_head(job, work_dir=work, text_dir=place.text_dir, out=folder, **how)
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
