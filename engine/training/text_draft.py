"""A draft with another tokenizer: bytes. It meets its target in text, so the target's scores are
of no use to it and it learns by plain next-token loss: first from the corpus, then, while the
learning rate falls, from text that the target itself wrote (sequence-level distillation, Kim &
Rush 2016).

Corpus, split, trainer, files and checkpoints are those of the pair.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from engine.models import LoadedModel, load_model
from engine.text import REPLACEMENT, decode
from engine.training.account import corpus_account
from engine.training.batches import TokenArray
from engine.training.checkpoint import load_checkpoint
from engine.training.claims import claim
from engine.training.corpus import Split, read_sources, split
from engine.training.models import DRAFT_SHAPE, ModelShape, reload
from engine.training.prepare import Prepared, prepare
from engine.training.progress import Budget, OnProgress, PairProgress, ShouldStop
from engine.training.recipe import TextRecipe
from engine.training.spelling import evaluate_text_draft
from engine.training.store import TeacherStore, fill_store
from engine.training.target import Stage, TargetData, TargetRecipe, train_target
from engine.training.teacher import ScoredRows, TeacherRecipe, teach
from engine.training.text_card import write_text_card
from engine.training.tokenizer import byte_tokenizer

logger = logging.getLogger(__name__)

STAGES = (Stage(0, 256, 16), Stage(0.4, 512, 8), Stage(0.7, 1024, 4), Stage(0.9, 2048, 2))
"""A token of the pair's tokenizer is three or four bytes: windows grow to as much text."""


@dataclass(frozen=True, kw_only=True)
class TextDraftRecipe(TextRecipe):
    """Everything that decides what draft comes out."""

    budget: Budget
    """For the draft's own training."""
    writing_budget: Budget
    """For what the target writes for it."""
    target: str = "pycode-target"
    """Whose text it learns at the end; embedded name, folder or hub id."""
    shape: ModelShape = DRAFT_SHAPE
    context: int = 2048
    """Bytes: the longest window it is trained on is as long, or shorter."""
    writing_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of `TeacherRecipe`."""
    draft_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of `TargetRecipe`, whose trainer this is."""


def train_text_draft(
    recipe: TextDraftRecipe,
    *,
    work_dir: Path,
    out: Path,
    command: str = "",
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> dict[str, Any]:
    """Make the model in folder `out`; return what its `training.json` says.

    Raises:
        TrainingStopped: `should_stop` said so; the same call goes on where this one ended.
        ValueError: the corpus is unusable, or `work_dir` belongs to another recipe.
        UserError: the target cannot be loaded.
    """
    calls: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}
    target = load_model(recipe.target, dtype="float32", device=recipe.device)
    if not (target.tokenizer.is_fast and target.eos_ids):
        raise ValueError(
            f"{target.name} cannot write for a draft: its tokenizer has no tokenizer.json, or no "
            "token ends a text; choose another --target"
        )
    on_progress(PairProgress(phase="corpus", fraction=0.0, message="reading sources"))
    parts = split(read_sources(recipe.texts))
    on_progress(PairProgress(phase="tokenizer", fraction=0.0, message="encoding"))
    theirs = prepare(
        parts, work_dir=work_dir / "target", seed=recipe.seed, tokenizer=target.tokenizer
    )
    prepared = prepare(
        parts,
        work_dir=work_dir,
        context=recipe.context,
        seed=recipe.seed,
        tokenizer=byte_tokenizer(context=recipe.context),
    )
    _claim(recipe, target, work_dir)
    shards = _write(recipe, target, theirs, work_dir=work_dir, **calls)
    written = rewrite(shards, target, prepared.tokenizer)
    draft = train_target(
        _trainer(recipe),
        TargetData(
            prepared.train, written, len(prepared.tokenizer), prepared.tokenizer.eos_token_id
        ),
        checkpoint=work_dir / "draft.pt",
        **calls,
    )
    draft = reload(draft, prepared.tokenizer, out, device=recipe.device)
    figures = evaluate_text_draft(
        target,
        draft,
        theirs,
        prepared,
        parts,
        new_tokens=recipe.evaluate_tokens,
        on_progress=on_progress,
    )
    account = _account(recipe, parts, prepared, written, work_dir, target.name)
    return write_text_card(
        out, model=draft, figures=figures, account=account, command=command,
        new_tokens=recipe.evaluate_tokens,
    )  # fmt: skip


def _write(
    recipe: TextDraftRecipe,
    target: LoadedModel,
    theirs: Prepared,
    *,
    work_dir: Path,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> list[ScoredRows]:
    """Let the target write, and return all that it wrote."""
    store = TeacherStore(work_dir / "teacher")
    options = TeacherRecipe(
        **{"rollout_share": 1.0, "top": 1, "seed": recipe.seed} | recipe.writing_options
    )
    fill_store(
        store,
        lambda shard: teach(target.model, theirs.library, options, shard=shard),
        recipe.writing_budget,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    return store.load()


def rewrite(
    shards: list[ScoredRows], target: LoadedModel, tokenizer: PreTrainedTokenizerFast
) -> TokenArray:
    """The target's rows as one stream of the draft's tokens, an end-of-text token after each.

    Characters that a row's ends cut through are left out.
    """
    end = tokenizer.eos_token_id
    parts = [
        np.array([*tokenizer.encode(text, verbose=False), end], np.int32)
        for text in _texts(shards, target)
    ]
    return np.concatenate(parts)


def _texts(shards: list[ScoredRows], target: LoadedModel) -> Iterator[str]:
    for shard in shards:
        for row in shard.tokens_RT:
            ends = np.flatnonzero(np.isin(row, list(target.eos_ids)))
            for piece in np.split(row, ends):
                text = decode(target.tokenizer, piece.tolist()).strip(REPLACEMENT)
                if text:
                    yield text


def _trainer(recipe: TextDraftRecipe) -> TargetRecipe:
    fields: dict[str, Any] = {
        "stages": tuple(s._replace(length=min(s.length, recipe.context)) for s in STAGES),
        "decay": 0.35,
        "adam_lr": 0.003,
        "weight_decay": 0.0,
        "micro_tokens": 4096,
    }
    return TargetRecipe(
        budget=recipe.budget,
        shape=recipe.shape,
        first_layers=recipe.shape.layers,
        context=recipe.context,
        seed=recipe.seed,
        device=recipe.device,
        phase="draft",
        **fields | recipe.draft_options,
    )


def _claim(recipe: TextDraftRecipe, target: LoadedModel, work_dir: Path) -> None:
    """Throw away what was made for another target or another shape."""
    shape = dataclasses.asdict(recipe.shape) | {"context": recipe.context, "seed": recipe.seed}
    claim(work_dir, "teacher", {"target": target.content_hash}, ["teacher", "draft.pt"])
    claim(work_dir, "draft", shape, ["draft.pt"])


def _account(
    recipe: TextDraftRecipe,
    parts: Split,
    prepared: Prepared,
    written: TokenArray,
    work_dir: Path,
    target: str,
) -> dict[str, Any]:
    """What went into the model, for the card."""
    state = load_checkpoint(work_dir / "draft.pt") or {}
    store = TeacherStore(work_dir / "teacher")
    kept = dataclasses.asdict(dataclasses.replace(recipe, target=target))
    return {
        "corpus": corpus_account(
            parts, num_tokens=len(prepared.train), unit="bytes", from_library=not recipe.texts
        ),
        "recipe": json.loads(json.dumps(kept, default=str)),
        "written": {
            "by": target,
            "tokens": store.tokens,
            "bytes": len(written),
            "seconds": store.seconds,
        },
        "draft_training": {
            "bytes": state.get("tokens"),
            **{key: state.get(key) for key in ("steps", "seconds", "loss")},
        },
    }
