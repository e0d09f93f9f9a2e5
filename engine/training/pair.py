"""The recipe from end to end: corpus, tokenizer, target, its own text, draft, files, figures.

Every phase keeps what it has done in the work folder and is skipped or taken up on the next call,
so a run can be interrupted anywhere. The draft learns from the target as it is saved, rounded to
half precision.

A recipe may go on from a trained target (`start`), train one that can leave early (`exits`), and
leave the draft out (`draft`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM

from engine.training.account import corpus_account, trained
from engine.training.agreement import held_out_loss
from engine.training.card import write_cards
from engine.training.checkpoint import load_checkpoint
from engine.training.claims import claim, same_claim
from engine.training.corpus import Split, read_sources, split
from engine.training.distill import DistillRecipe, distill
from engine.training.evaluate import evaluate_exits, evaluate_pair
from engine.training.exits import NO_EXITS, ExitRecipe
from engine.training.models import DRAFT_SHAPE, TARGET_SHAPE, ModelShape, reload
from engine.training.prepare import Prepared, prepare
from engine.training.progress import Budget, OnProgress, PairProgress, ShouldStop
from engine.training.recipe import TextRecipe
from engine.training.start import DECAY, PEAK, STAGES, Start, load_start
from engine.training.store import TeacherStore, fill_store
from engine.training.target import TargetData, TargetRecipe, train_target
from engine.training.teacher import TeacherRecipe, teach

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PairRecipe(TextRecipe):
    """Everything that decides what pair comes out."""

    target_budget: Budget
    teacher_budget: Budget
    """For what the target writes and scores."""
    draft_budget: Budget
    """For the draft's own training."""
    target_shape: ModelShape = TARGET_SHAPE
    draft_shape: ModelShape = DRAFT_SHAPE
    vocab_size: int = 4096
    context: int = 2048
    start: str | None = None
    """A target to go on from, with its tokenizer and shape: embedded name, folder or hub id."""
    exits: ExitRecipe = NO_EXITS
    """Layer dropout and early-exit loss of the target."""
    draft: bool = True
    """Whether a draft is made; without one the target's folder is named NAME."""
    target_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of `TargetRecipe`."""
    teacher_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of `TeacherRecipe`."""
    draft_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of `DistillRecipe`."""


def train_pair(
    recipe: PairRecipe,
    *,
    work_dir: Path,
    out: Path,
    name: str = "pycode",
    command: str = "",
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> dict[str, Any]:
    """Make `out/NAME-target` and `out/NAME-draft`; return what their `training.json` says.

    Raises:
        TrainingStopped: `should_stop` said so; the same call goes on where this one ended.
        ValueError: the corpus or the model to go on from is unusable, or `work_dir` belongs to
            another recipe.
        UserError: the model to go on from cannot be loaded.
    """
    start = load_start(recipe.start, device=recipe.device) if recipe.start else None
    if start is not None:
        recipe = _going_on(recipe, start)
    on_progress(PairProgress(phase="corpus", fraction=0.0, message="reading sources"))
    parts = split(read_sources(recipe.texts))
    on_progress(PairProgress(phase="tokenizer", fraction=0.0, message="training and encoding"))
    prepared = prepare(
        parts,
        work_dir=work_dir,
        vocab_size=recipe.vocab_size,
        context=recipe.context,
        seed=recipe.seed,
        tokenizer=start.tokenizer if start else None,
    )
    calls: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}
    target = _make_target(recipe, start, prepared, work_dir=work_dir, **calls)
    folders = {"target": out / (f"{name}-target" if recipe.draft else name)}
    target = reload(target, prepared.tokenizer, folders["target"], device=recipe.device)
    models = {"target": target}
    if recipe.draft:
        draft = make_draft(recipe, target, prepared, work_dir=work_dir, **calls)
        folders["draft"] = out / f"{name}-draft"
        models["draft"] = reload(draft, prepared.tokenizer, folders["draft"], device=recipe.device)
        figures = evaluate_pair(
            target, models["draft"], prepared, parts, new_tokens=recipe.evaluate_tokens,
            on_progress=on_progress,
        )  # fmt: skip
    else:
        figures = {"held_out_loss": {"target": held_out_loss(target, prepared.held_out)}}
    if recipe.exits:
        figures["exits"] = evaluate_exits(target, start and start.model, prepared)
    return write_cards(
        folders,
        figures=figures,
        models=models,
        training=_account(recipe, parts, prepared, work_dir),
        command=command,
        new_tokens=recipe.evaluate_tokens,
    )


def _going_on(recipe: PairRecipe, start: Start) -> PairRecipe:
    """The recipe with the shape, vocabulary and context of the model to go on from."""
    return dataclasses.replace(
        recipe,
        start=start.name,
        target_shape=start.shape,
        vocab_size=len(start.tokenizer),
        context=start.context,
    )


def _make_target(
    recipe: PairRecipe,
    start: Start | None,
    prepared: Prepared,
    *,
    work_dir: Path,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> LlamaForCausalLM:
    """Train the target. Raises ValueError where the work folder is another one's."""
    if not same_claim(work_dir, "target", _target_key(recipe, start)):
        raise ValueError(
            f"{work_dir} holds a target of another shape, seed, beginning or exit training; "
            "choose another --work-dir or start over with --no-resume"
        )
    end = prepared.tokenizer.eos_token_id
    return train_target(
        target_recipe(recipe),
        TargetData(prepared.train, prepared.library, len(prepared.tokenizer), end),
        checkpoint=work_dir / "target.pt",
        start=start.model if start else None,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def make_draft(
    recipe: PairRecipe,
    target: LlamaForCausalLM,
    prepared: Prepared,
    *,
    work_dir: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> LlamaForCausalLM:
    """Let the target write and score text, and distil a draft from it."""
    calls: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}
    # What a target wrote before it was trained further would teach a draft of the old one.
    learnt = {"target_tokens": (load_checkpoint(work_dir / "target.pt") or {}).get("tokens")}
    claim(work_dir, "teacher", learnt, ["teacher", "draft.pt"])
    claim(work_dir, "draft", dataclasses.asdict(recipe.draft_shape), ["draft.pt"])
    store = TeacherStore(work_dir / "teacher")
    options = TeacherRecipe(seed=recipe.seed, **recipe.teacher_options)
    fill_store(
        store,
        lambda shard: teach(target, prepared.library, options, shard=shard),
        recipe.teacher_budget,
        **calls,
    )
    return distill(
        target,
        store.load(),
        DistillRecipe(
            budget=recipe.draft_budget,
            shape=recipe.draft_shape,
            seed=recipe.seed,
            device=recipe.device,
            **recipe.draft_options,
        ),
        checkpoint=work_dir / "draft.pt",
        **calls,
    )


def target_recipe(recipe: PairRecipe) -> TargetRecipe:
    """Return the target's part of the recipe."""
    going_on: dict[str, Any] = {}
    if recipe.start:
        windows = tuple(s._replace(length=min(s.length, recipe.context)) for s in STAGES)
        going_on = {
            "first_layers": recipe.target_shape.layers,
            "peak": PEAK,
            "decay": DECAY,
            "stages": windows,
        }
    return TargetRecipe(
        budget=recipe.target_budget,
        shape=recipe.target_shape,
        context=recipe.context,
        seed=recipe.seed,
        device=recipe.device,
        exits=recipe.exits,
        **going_on | recipe.target_options,
    )


def _target_key(recipe: PairRecipe, start: Start | None) -> dict[str, Any]:
    """What a work folder's target is told by. What is left at nothing is left out: older folders
    know nothing of it."""
    key = {**dataclasses.asdict(recipe.target_shape), "seed": recipe.seed}
    if start is not None:
        key["start"] = start.content_hash
    return key | (dataclasses.asdict(recipe.exits) if recipe.exits else {})


def _account(
    recipe: PairRecipe, parts: Split, prepared: Prepared, work_dir: Path
) -> dict[str, Any]:
    """Return what went into the pair, for the card."""
    account: dict[str, Any] = {
        "first_layers": target_recipe(recipe).layers_at_first,
        "corpus": corpus_account(
            parts, num_tokens=len(prepared.train), from_library=not recipe.texts
        ),
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe), default=str)),
        "target_training": trained(work_dir / "target.pt"),
    }
    if recipe.draft:
        store = TeacherStore(work_dir / "teacher")
        account["teacher"] = {
            "tokens": store.tokens,
            "seconds": store.seconds,
            "shards": len(store),
        }
        account["draft_training"] = trained(work_dir / "draft.pt")
    return account
