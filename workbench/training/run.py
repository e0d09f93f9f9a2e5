"""A training of a head as a job: what the page asks for, done by `engine.training.make_head`.

The work folder below the stored runs keeps the log, the checkpoint, the text and the spec, and the
head itself in `head`. Started again, the same spec goes on where it was stopped or killed.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UserError
from engine.training.heads_log import FILE as LOG
from workbench.comparing.dtypes import why_unusable
from workbench.events import Event, MeasuringFinished, MeasuringStarted, Progress
from workbench.job import use_threads
from workbench.measuring import MEASURE
from workbench.models import out_of_memory
from workbench.store.index import prepare_folder
from workbench.training.spec import (
    LEARNING_RATES,
    OPTIMISER,
    OUT,
    TrainSpec,
    forget_spec,
    write_spec,
)

if TYPE_CHECKING:
    from engine.training.heads import HeadRecipe
    from engine.training.make_head import HeadJob
    from engine.training.progress import PairProgress

FOLDER = "heads"
#: the phase of `engine.training.make_head` in which steps are made
_STEPS = "head"
_WORDS = {
    "corpus": "Reading the text and putting it into tokens",
    "generate": "The target writes text of its own",
    "ngram": "Counting an n-gram to judge by",
    "evaluate": "Measuring how often the guesses are right",
}


def train(
    spec: TrainSpec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    *,
    runs: Path | None = None,
) -> MeasuringFinished:
    """Train, or go on with, what `spec` asks for; the last event, not yet emitted.

    Raises:
        UserError: wrong input: no such text, a target that cannot be loaded, a folder that holds
            another training.
    """
    from engine.training.make_head import make_head
    from engine.training.progress import TrainingFailed, TrainingStopped

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    folder = prepare_folder(runs) / FOLDER / spec.name
    use_threads(spec.threads)
    job = head_job(spec)
    texts = _text_folder(spec, folder)
    write_spec(spec, folder)
    emit(MeasuringStarted(spec.name))
    emit(Progress("load", f"Loading {spec.target}"))
    try:
        make_head(
            job,
            work_dir=folder,
            out=folder / OUT,
            text_dir=texts,
            command=train_command(spec, folder, texts),
            on_progress=lambda progress: emit(_told(progress)),
            should_stop=should_stop,
        )
    except TrainingStopped:
        return MeasuringFinished(spec.name, "cancelled")
    except TrainingFailed as error:
        return MeasuringFinished(spec.name, "failed", str(error))
    except (UserError, ValueError) as error:
        if not (folder / LOG).is_file():
            forget_spec(folder)
        raise error if isinstance(error, UserError) else UserError(_sentence(str(error))) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return MeasuringFinished(
            spec.name,
            "failed",
            "Memory ran out while training; use fewer or shorter rows, bfloat16 or a smaller "
            "target. The last checkpoint is kept.",
        )
    return MeasuringFinished(spec.name, "finished")


def head_job(spec: TrainSpec) -> HeadJob:
    """What the engine trains. Raises UserError for a device or format that is not here."""
    from engine.models import resolve_device
    from engine.training.make_head import HeadJob
    from workbench.workloads import load_workload

    device = resolve_device(spec.device)
    if reason := why_unusable(spec.dtype, device):
        raise UserError(_sentence(reason))
    prompts: tuple[str, ...] = ()
    if spec.workload is not None:
        prompts = tuple("\n".join(one.turns) for one in load_workload(spec.workload))
    return HeadJob(
        kind=spec.kind,
        target=spec.target,
        options=dict(spec.options),
        texts=tuple(Path(text).expanduser() for text in spec.texts),
        prompts=prompts,
        written_tokens=spec.written,
        recipe=_recipe(spec, device),
    )


def train_command(spec: TrainSpec, folder: Path, texts: Path) -> str:
    """`draftree train KIND ...` that does the same, and goes on with it, from a terminal."""
    import shlex

    words = ["draftree", "train", spec.kind, "--target", spec.target]
    for text in spec.texts:
        words += ["--text", text]
    if spec.workload is not None:
        words += ["--workload", spec.workload]
    words += ["--minutes", f"{spec.minutes:g}"] if spec.minutes else ["--tokens", str(spec.tokens)]
    words += ["--written", str(spec.written)]
    for name, value in spec.recipe.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in spec.options.items():
        words += ["--option", f"{name}={value}"]
    words += ["--dtype", spec.dtype, "--device", spec.device, "--seed", str(spec.seed)]
    words += ["--threads", str(spec.threads)] if spec.threads else []
    words += ["--work-dir", str(folder), "--text-dir", str(texts)]
    words += ["--out", str(folder), "--name", OUT]
    return shlex.join(words)


def _text_folder(spec: TrainSpec, folder: Path) -> Path:
    """Where the text is kept: that of the library serves all trainings that read it alike.

    Putting it into tokens takes a minute, and the target writes for minutes.
    """
    from engine.models import content_hash, resolve_path
    from engine.training.heads import HeadRecipe

    path = resolve_path(spec.target)
    if spec.texts or spec.workload is not None:
        return folder
    length = spec.recipe.get("length", HeadRecipe.length)
    target = content_hash(path) if Path(path).is_dir() else path
    key = (target, spec.seed, spec.written, length, spec.dtype, platform.python_version())
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
    return folder.parent / ".library" / digest


def _recipe(spec: TrainSpec, device: str) -> HeadRecipe:
    from engine.training.heads import HeadRecipe
    from engine.training.progress import Budget

    values = {"optimiser": OPTIMISER} | spec.recipe
    if not values.get("lr"):
        values["lr"] = LEARNING_RATES.get(values["optimiser"], 0.0)
    try:
        return HeadRecipe(
            budget=Budget(minutes=spec.minutes, tokens=spec.tokens),
            dtype=spec.dtype,
            device=device,
            seed=spec.seed,
            **values,
        )
    except TypeError as error:
        raise UserError(f"A training has no such setting: {error}.") from error


def _told(progress: PairProgress) -> Progress:
    """A sign of life in the words of the page; fractions of the steps alone are of the whole."""
    if progress.phase == _STEPS:
        rate = progress.tokens_per_second
        said = f"loss {progress.loss:.3f}" if progress.loss is not None else "first steps"
        said += f", {rate:,.0f} tokens per second" if rate else ""
        return Progress(MEASURE, f"{progress.tokens:,} tokens read, {said}", progress.fraction)
    words = _WORDS.get(progress.phase, progress.message or progress.phase)
    return Progress(progress.phase, f"{words}: {progress.fraction:.0%}", progress.fraction)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
