"""The recipe from end to end: corpus, tokenizer, target, its own text, draft, files, figures.

Every phase keeps what it has done in the work folder and is skipped or taken up on the next call,
so a run can be interrupted anywhere. The draft learns from the target as it is saved, rounded to
half precision.
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
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from engine.training.card import PYTHON_LICENCE, write_cards
from engine.training.checkpoint import load_checkpoint
from engine.training.claims import discard, same_claim
from engine.training.corpus import SourceFile, Split, read_standard_library, read_texts, split
from engine.training.distill import DistillRecipe, distill
from engine.training.evaluate import evaluate_pair
from engine.training.models import DRAFT_SHAPE, TARGET_SHAPE, ModelShape, place
from engine.training.prepare import Prepared, prepare
from engine.training.progress import Budget, OnProgress, PairProgress, ShouldStop
from engine.training.store import TeacherStore, fill_store
from engine.training.target import TargetData, TargetRecipe, train_target
from engine.training.teacher import TeacherRecipe, teach

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PairRecipe:
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
    texts: tuple[Path, ...] = ()
    """Files or folders to train on; the standard library when there are none."""
    device: str = "cpu"
    seed: int = 0
    evaluate_tokens: int = 128
    """Length of the greedy continuations on which agreement is measured."""
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
        ValueError: the corpus is unusable, or `work_dir` belongs to another recipe.
    """
    on_progress(PairProgress(phase="corpus", fraction=0.0, message="reading sources"))
    parts = split(_read_corpus(recipe))
    on_progress(PairProgress(phase="tokenizer", fraction=0.0, message="training and encoding"))
    prepared = prepare(
        parts,
        work_dir=work_dir,
        vocab_size=recipe.vocab_size,
        context=recipe.context,
        seed=recipe.seed,
    )
    if not same_claim(work_dir, "target", _target_key(recipe)):
        raise ValueError(
            f"{work_dir} holds a target of another shape or seed; "
            "choose another --work-dir or start over with --no-resume"
        )
    calls: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}
    target = train_target(
        target_recipe(recipe),
        TargetData(
            prepared.train,
            prepared.library,
            len(prepared.tokenizer),
            prepared.tokenizer.eos_token_id,
        ),
        checkpoint=work_dir / "target.pt",
        **calls,
    )
    folders = {role: out / f"{name}-{role}" for role in ("target", "draft")}
    target = reload(target, prepared.tokenizer, folders["target"], device=recipe.device)
    draft = make_draft(recipe, target, prepared, work_dir=work_dir, **calls)
    draft = reload(draft, prepared.tokenizer, folders["draft"], device=recipe.device)
    figures = evaluate_pair(
        target, draft, prepared, parts, new_tokens=recipe.evaluate_tokens, on_progress=on_progress
    )
    return write_cards(
        folders,
        figures=figures,
        models={"target": target, "draft": draft},
        training=_account(recipe, parts, prepared, work_dir),
        command=command,
        new_tokens=recipe.evaluate_tokens,
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
    if not same_claim(work_dir, "teacher", learnt):
        discard(work_dir, ["teacher", "draft.pt"])
        same_claim(work_dir, "teacher", learnt)
    shape = dataclasses.asdict(recipe.draft_shape)
    if not same_claim(work_dir, "draft", shape):
        discard(work_dir, ["draft.pt"])
        same_claim(work_dir, "draft", shape)
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
    return TargetRecipe(
        budget=recipe.target_budget,
        shape=recipe.target_shape,
        context=recipe.context,
        seed=recipe.seed,
        device=recipe.device,
        **recipe.target_options,
    )


def _target_key(recipe: PairRecipe) -> dict[str, Any]:
    return {**dataclasses.asdict(recipe.target_shape), "seed": recipe.seed}


def reload(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    device: str = "cpu",
) -> LlamaForCausalLM:
    """Save a model in half precision and return what a reader of the files gets, in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = None
    place(model, "cpu").half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return place(loaded, device).eval()


def choose_device(name: str, *, threads: int | None = None) -> str:
    """Return `cuda` or `cpu` for a name or `auto`, and set the number of processor threads.

    Raises:
        ValueError: a GPU is asked for and there is none, or the name is unknown.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch sees no CUDA device; use --device cpu")
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"device {name!r} is not known; use cpu, cuda or auto")
    return name


def _read_corpus(recipe: PairRecipe) -> list[SourceFile]:
    return read_texts(recipe.texts) if recipe.texts else read_standard_library()


def _account(
    recipe: PairRecipe, parts: Split, prepared: Prepared, work_dir: Path
) -> dict[str, Any]:
    """Return what went into the pair, for the card."""
    target = load_checkpoint(work_dir / "target.pt") or {}
    draft = load_checkpoint(work_dir / "draft.pt") or {}
    store = TeacherStore(work_dir / "teacher")
    return {
        "first_layers": target_recipe(recipe).layers_at_first,
        "corpus": corpus_account(
            parts, num_tokens=len(prepared.train), from_library=not recipe.texts
        ),
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe), default=str)),
        "target_training": {key: target.get(key) for key in ("tokens", "steps", "seconds", "loss")},
        "teacher": {"tokens": store.tokens, "seconds": store.seconds, "shards": len(store)},
        "draft_training": {key: draft.get(key) for key in ("tokens", "steps", "seconds", "loss")},
    }


def corpus_account(
    parts: Split, *, num_tokens: int, unit: str = "tokens", from_library: bool
) -> dict[str, Any]:
    """Return what the text was, for a card; `num_tokens` are those to train on."""
    tests = [file for file in parts.train if file.is_test]
    return {
        "description": (
            f"The sources of Python {platform.python_version()}'s standard library with its "
            f"tests: {len(parts.train)} files ({len(tests)} of them tests), "
            f"{num_tokens:,} {unit}; {len(parts.held_out)} files held out."
            if from_library
            else f"{len(parts.train)} files given with --text, {num_tokens:,} {unit}."
        ),
        "licence": PYTHON_LICENCE if from_library else "That of the text it was trained on.",
        "train_files": len(parts.train),
        "train_tokens": num_tokens,
        "held_out_files": [file.path for file in parts.held_out],
    }
