"""A trained head from end to end: text, what the target writes, training, files, figures.

Every phase keeps what it has done in the work folder and is taken up there on the next call, so a
training can be interrupted anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from engine.heads import head_kind
from engine.heads.files import save_head
from engine.models import LoadedModel, first_line, load_model
from engine.training.account import corpus_account
from engine.training.card import stamp
from engine.training.claims import discard, same_claim
from engine.training.corpus import SourceFile, Split, read_sources, split
from engine.training.heads import HeadData, HeadRecipe, Hits, Objective, Trained
from engine.training.heads_log import FILE, HeadLog
from engine.training.heads_ngram import ngram_accuracy
from engine.training.heads_run import FINAL_FACTOR, train_head
from engine.training.heads_teller import Teller
from engine.training.heads_text import encode_corpus, library, write_text
from engine.training.progress import (
    OnProgress,
    PairProgress,
    ShouldStop,
    TrainingFailed,
    TrainingStopped,
)

logger = logging.getLogger(__name__)

CHECKPOINT = "head.pt"
_OFFSETS = range(2, 10)
"""At which an n-gram is looked at, for whoever watches to compare with."""


@dataclass(frozen=True, kw_only=True)
class HeadJob:
    """What is trained, on what."""

    kind: str
    """A name of `engine.heads.KINDS`."""
    recipe: HeadRecipe
    target: str = "pycode-target"
    """Embedded name, folder or hub id."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the kind's objective."""
    texts: tuple[Path, ...] = ()
    """Files or folders to train on; the standard library when there are none."""
    prompts: tuple[str, ...] = ()
    """Texts to train on in place of files: a workload's prompts."""
    written_tokens: int = 200_000
    """Tokens that the target writes for its head; 0: corpus alone."""


def make_head(
    job: HeadJob,
    *,
    work_dir: Path,
    out: Path,
    text_dir: Path | None = None,
    command: str = "",
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> dict[str, Any]:
    """Make a head in folder `out`; return what its head.json says.

    `work_dir` gets the checkpoint and the log, `text_dir` (the same unless given) the text, which
    several kinds can share.

    Raises:
        TrainingStopped: `should_stop` said so; the same call goes on where this one ended.
        TrainingFailed: the loss is no number, or the disk is full; says what is kept.
        ValueError: the text is unusable, or `work_dir` belongs to another training.
        UserError: the target cannot be loaded, or the options make no head for it.
    """
    objective_class = head_kind(job.kind).objective_class()
    target = load_model(job.target, dtype=job.recipe.dtype, device=job.recipe.device)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.recipe.seed)
            objective: Objective = objective_class(target, **job.options)
    except TypeError as error:
        raise ValueError(f"a {job.kind} head has no such option: {error}") from error
    _claim(job, target, objective, work_dir)
    try:
        return _told(
            job, target, objective, work_dir=work_dir, text_dir=text_dir or work_dir, out=out,
            command=command, on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip
    except (OSError, SafetensorError) as error:  # the latter is what its writer makes of them
        raise TrainingFailed(_no_file(error, work_dir)) from error


def _told(
    job: HeadJob,
    target: LoadedModel,
    objective: Objective,
    *,
    work_dir: Path,
    text_dir: Path,
    out: Path,
    command: str,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> dict[str, Any]:
    """Train and save; the log has a beginning and, whatever happens, an end."""
    log = HeadLog(work_dir)
    teller = Teller(log, on_progress)
    log.start(
        kind=job.kind,
        target=target.name,
        target_given=job.target,
        target_hash=target.content_hash,
        out=str(out),
        command=command,
        recipe=json.loads(json.dumps(dataclasses.asdict(job.recipe))),
        **_reached(work_dir),
    )
    try:
        card = _make(
            job, target, objective, work_dir=work_dir, text_dir=text_dir, teller=teller,
            should_stop=should_stop,
        )  # fmt: skip
        card["command"] = command
        save_head(out, objective.module, card)
    except TrainingStopped:
        teller.end("stopped", "stopped; the same command goes on from here")
        raise
    except (OSError, SafetensorError) as error:
        teller.end("failed", _no_file(error, work_dir))
        raise
    except (TrainingFailed, ValueError) as error:
        teller.end("failed", str(error))
        raise
    teller.end("finished", f"wrote {out}")
    return card


def _no_file(error: Exception, work_dir: Path) -> str:
    """Why a file stopped the training, and what is left of it."""
    reason = getattr(error, "strerror", None) or first_line(error)
    filename = getattr(error, "filename", None)
    where = f" ({filename})" if filename else ""
    return (
        f"The training cannot go on: {reason}{where}. What lies in {work_dir} is kept: put it "
        "right, with more room perhaps, and start the same command again."
    )


def start_over(work_dir: Path) -> None:
    """Remove what a training keeps in its work folder, and nothing else."""
    parts = ["corpus", "written", "written-held-out", CHECKPOINT, FILE, "ngram.json"]
    discard(work_dir, parts)


def _make(
    job: HeadJob,
    target: LoadedModel,
    objective: Objective,
    *,
    work_dir: Path,
    text_dir: Path,
    teller: Teller,
    should_stop: ShouldStop,
) -> dict[str, Any]:
    recipe = job.recipe
    teller.say(PairProgress(phase="corpus", fraction=0.0, message="reading and encoding"))
    parts = split(_files(job))
    corpus = encode_corpus(
        parts, target, text_dir / "corpus", seed=recipe.seed,
        on_progress=teller.say, should_stop=should_stop,
    )  # fmt: skip
    written = written_held_out = None
    if job.written_tokens and recipe.written_share:
        written, written_held_out = write_text(
            target, corpus, recipe, tokens=job.written_tokens, folder=text_dir,
            on_progress=teller.say, should_stop=should_stop,
        )  # fmt: skip
    teller.say(PairProgress(phase="ngram", fraction=0.0, message="on the same text"))
    ngram = ngram_accuracy(
        corpus.train,
        corpus.held_out,
        vocab_size=target.vocab_size,
        offsets=_OFFSETS,
        length=recipe.length,
        most=FINAL_FACTOR * recipe.evaluate_tokens,
        sees_next=objective.sees_next,
    )
    teller.compare_with(ngram)
    trained = train_head(
        recipe,
        target,
        HeadData(corpus.train, corpus.held_out, written, written_held_out),
        objective,
        checkpoint=work_dir / CHECKPOINT,
        on_progress=teller.say,
        should_stop=should_stop,
    )
    ngram = {offset: ngram[offset] for offset in trained.held_out.text if offset in ngram}
    return _card(job, target, trained, ngram) | {
        "corpus": _account(job, parts, num_tokens=len(corpus.train)),
        "written_tokens": 0 if written is None else int(written.size),
    }


def _card(
    job: HeadJob, target: LoadedModel, trained: Trained, ngram: dict[int, Hits]
) -> dict[str, Any]:
    """What head.json says of the training."""
    return {
        "target": {"name": target.name, "content_hash": target.content_hash},
        **trained.held_out.as_json(),
        "before": trained.first.as_json(),
        "ngram": {str(offset): hits.as_json() for offset, hits in ngram.items()},
        "training": {
            "steps": trained.step,
            "tokens": trained.tokens,
            "seconds": round(trained.seconds, 1),
            "loss": trained.loss,
            "ended_early": trained.ended_early,
        },
        "recipe": json.loads(json.dumps(dataclasses.asdict(job.recipe))),
        "options": job.options,
        **stamp(),
    }


def _account(job: HeadJob, parts: Split, *, num_tokens: int) -> dict[str, Any]:
    """What the text was, as the pair's cards tell it; tests were left out."""
    own = bool(job.texts or job.prompts)
    read = Split([*library(parts.train)], parts.held_out)
    account = corpus_account(read, num_tokens=num_tokens, from_library=not own)
    if not own:
        account["description"] = (
            f"The sources of Python {platform.python_version()}'s standard library without its "
            f"tests: {len(read.train)} files, {num_tokens:,} tokens; {len(read.held_out)} files "
            "held out."
        )
    return account


def _files(job: HeadJob) -> list[SourceFile]:
    if job.prompts:
        return [SourceFile(f"prompt-{at}", text) for at, text in enumerate(job.prompts) if text]
    return read_sources(job.texts)


def _claim(job: HeadJob, target: LoadedModel, objective: Objective, work_dir: Path) -> None:
    """Raises ValueError where the work folder holds a training of something else."""
    key = {
        "kind": job.kind,
        "target": target.content_hash,
        "sizes": objective.module.sizes(),  # type: ignore[operator]
        "options": job.options,
        "seed": job.recipe.seed,
    }
    if not same_claim(work_dir, "head", key):
        raise ValueError(
            f"{work_dir} holds a training of another head, for another target or with other "
            "options; choose another --work-dir or start over with --no-resume"
        )


def _reached(work_dir: Path) -> dict[str, Any]:
    """Where the checkpoint stands that is taken up."""
    from engine.training.checkpoint import load_checkpoint

    state = load_checkpoint(work_dir / CHECKPOINT)
    meter = state["meter"] if state is not None else {}
    return {"step": meter.get("steps", 0), "tokens": meter.get("tokens", 0)}
