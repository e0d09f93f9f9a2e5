"""Text for heads: a corpus in the target's tokens, and text that the target writes itself.

Heads are judged by what the target says next, so text of its own teaches them more than anybody
else's (Medusa, section 2.3.2; EAGLE trains on it throughout). Both are kept in the work folder:
tokens, never hidden states.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from engine.models import LoadedModel
from engine.ngram import vocabulary_hash
from engine.training.batches import BatchSampler, TokenArray, encode_files
from engine.training.corpus import SourceFile, Split, shuffled
from engine.training.heads import HeadRecipe
from engine.training.progress import (
    Budget,
    OnProgress,
    PairProgress,
    ShouldStop,
    TrainingStopped,
)
from engine.training.store import TeacherStore, fill_store
from engine.training.teacher import ScoredRows, write_rollouts

logger = logging.getLogger(__name__)

_ROLLOUTS = 64
"""Rows written side by side."""
_TEMPERATURES = (0.0, 0.4, 0.0, 0.7)
"""Of batches of rollouts, by turns; 0 is greedy."""
_PROMPT_SHARES = (8, 4, 2)
"""A row begins with so small a share of corpus text, by turns."""


class Encoded(NamedTuple):
    """A corpus in the target's tokens."""

    train: TokenArray
    held_out: TokenArray


def encode_corpus(
    parts: Split,
    target: LoadedModel,
    folder: Path,
    *,
    seed: int,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> Encoded:
    """Encode the corpus, tests left out where there is anything else, or load what lies there.

    Raises:
        TrainingStopped: `should_stop` said so; the next call begins anew.
        ValueError: `folder` holds another corpus's tokens, or the target cannot encode text.
    """
    tokenizer = target.tokenizer
    if not (getattr(tokenizer, "is_fast", False) and tokenizer.eos_token_id is not None):
        raise ValueError(
            f"{target.name} cannot encode a corpus: its tokenizer has no tokenizer.json, or no "
            "token ends a text; choose another --target"
        )
    if not parts.train:
        raise ValueError(
            "every file of the text is held out, and none is left to train on: give more files"
        )
    files = {"train": library(parts.train), "held_out": library(parts.held_out)}
    key: dict[str, Any] = {"vocabulary": vocabulary_hash(tokenizer), "seed": seed}
    for name, members in files.items():
        key[name] = [len(members), sum(len(file.text) for file in members)]
    marker = folder / "corpus.json"
    if marker.exists():
        if json.loads(marker.read_text()) != key:
            raise ValueError(
                f"{folder} was made from another corpus or for another target; choose another "
                "--work-dir or start over with --no-resume"
            )
        return Encoded(*(np.load(folder / f"{name}.npy") for name in files))
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, files.values()))

    def note(before: int, done: int) -> None:
        if should_stop():
            raise TrainingStopped(str(folder))
        share = (before + done) / total
        on_progress(PairProgress(phase="corpus", fraction=share, message="encoding"))

    arrays, before = [], 0
    for name, members in files.items():
        told = partial(note, before)
        arrays.append(encode_files(shuffled(members, seed=seed), tokenizer, on_done=told))
        before += len(members)
        np.save(folder / f"{name}.npy", arrays[-1])
        logger.info("%s: %d files, %d tokens", name, len(members), len(arrays[-1]))
    marker.write_text(json.dumps(key))
    return Encoded(*arrays)


def write_text(
    target: LoadedModel,
    corpus: Encoded,
    recipe: HeadRecipe,
    *,
    tokens: int,
    folder: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> tuple[TokenArray, TokenArray]:
    """Let the target write `tokens` for training, and one batch from held-out prompts.

    Returns both as rows of `recipe.length` tokens, int32.

    Raises:
        TrainingStopped: `should_stop` said so; what is written so far is kept.
    """
    kept, length = TeacherStore(folder / "written"), recipe.length
    calls: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}

    def write(shard: int) -> ScoredRows:
        share = _PROMPT_SHARES[shard % len(_PROMPT_SHARES)]
        temperature = _TEMPERATURES[shard % len(_TEMPERATURES)]
        return _rollouts(target, corpus.train, recipe, shard, share, temperature)

    fill_store(kept, write, Budget(tokens=tokens), **calls)
    held_out = TeacherStore(folder / "written-held-out")
    share = _PROMPT_SHARES[0]
    fill_store(
        held_out,
        lambda shard: _rollouts(target, corpus.held_out, recipe, shard, share, 0.0),
        Budget(tokens=1),
        **calls,
    )
    train, other = (
        np.concatenate([shard.tokens_RT for shard in store.load()]) for store in (kept, held_out)
    )
    assert train.shape[1] == other.shape[1] == length
    return train, other


def _rollouts(
    target: LoadedModel,
    corpus: TokenArray,
    recipe: HeadRecipe,
    shard: int,
    share: int,
    temperature: float,
) -> ScoredRows:
    """A batch of rows of `recipe.length` tokens, the first 1 / `share` of each from the corpus."""
    prompt = max(1, recipe.length // share)
    seed = recipe.seed * 1_000_003 + shard
    prompts = BatchSampler(corpus, seed=seed).draw(rows=_ROLLOUTS, length=prompt)[:, :-1]
    return write_rollouts(
        target.model,
        prompts.to(target.device),
        new_tokens=recipe.length - prompt + 1,
        temperature=temperature,
        top=1,
        generator=torch.Generator(device=target.device).manual_seed(seed),
    )


def library(files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    """Files that are no tests, or all where there is nothing else."""
    return [file for file in files if not file.is_test] or files
