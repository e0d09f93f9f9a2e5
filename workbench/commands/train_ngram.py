"""`draftree train ngram`: the trigram of `staged` and `ngram`, from text a model writes itself."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.flags import DeviceFlag


def ngram(
    model: Annotated[
        str, typer.Option(help="Draft model that writes: embedded name, folder or hub id.")
    ] = "pycode-draft",
    tokens: Annotated[
        int, typer.Option(help="Tokens it writes; more is better.", min=1000)
    ] = 500_000,
    temperature: Annotated[
        float, typer.Option(help="Of its writing: above 1 for variety.", min=0.01)
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the counts. [default: where runs find them by vocabulary]"),
    ] = None,
    device: DeviceFlag = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the writing.")] = 0,
) -> None:
    """Count what follows what in a model's own text. Ctrl-C counts what is written by then.

    Runs of `staged` and `ngram` find the counts by themselves, for any model of the vocabulary.

    Example:

        draftree train ngram --model ./my-small-model --tokens 2000000
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from engine.models import load_model, resolve_device
    from engine.ngram import FOLDER, vocabulary_hash
    from engine.paths import cache_folder
    from engine.training.ngram import train_ngram
    from workbench.commands.runner import on_interrupt
    from workbench.terminal import err, say

    loaded = load_model(model, dtype="float32", device=resolve_device(device))
    vocabulary = vocabulary_hash(loaded.tokenizer)
    folder = out or cache_folder() / FOLDER / vocabulary
    folder.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written to says so now
    stop = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    with on_interrupt(stop), Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task(f"{loaded.name} writes", total=tokens)
        found = train_ngram(
            loaded,
            num_tokens=tokens,
            temperature=temperature,
            seed=seed,
            on_progress=lambda written: bar.update(task, completed=written),
            should_stop=stop.is_set,
        )
    found.model.save(
        folder,
        vocabulary=vocabulary,
        written_by=loaded.name,
        written_by_hash=loaded.content_hash,
        num_tokens=found.num_tokens,
        temperature=temperature,
        seed=seed,
        first_right=round(found.first_right, 4),
        first_two_right=round(found.first_two_right, 4),
    )
    say(
        f"{found.num_tokens:,} tokens counted. On text held out the first guess is right "
        f"{found.first_right:.1%}, one of the first two {found.first_two_right:.1%} of the time."
    )
    say(f"Wrote {folder}")
