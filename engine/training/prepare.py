"""From source files to a tokenizer and token streams, kept in the work folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from engine.training.batches import TokenArray, encode_files
from engine.training.corpus import SourceFile, Split, shuffled
from engine.training.tokenizer import train_tokenizer

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """All that training needs of the corpus."""

    tokenizer: PreTrainedTokenizerFast
    train: TokenArray
    """All training files."""
    library: TokenArray
    """The training files that are no tests: the better part, for the end of training."""
    held_out: TokenArray
    """Held-out files that are no tests."""


def prepare(
    split: Split,
    *,
    work_dir: Path,
    vocab_size: int = 4096,
    context: int = 2048,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Prepared:
    """Train the tokenizer and encode the corpus, or load what an earlier call left.

    A `tokenizer` that is given is used as it is.

    Raises:
        ValueError: `work_dir` holds another corpus's or another vocabulary's tokens.
    """
    folder = work_dir / "corpus"
    if tokenizer is not None:
        vocab_size = len(tokenizer)
    key = _fingerprint(split, vocab_size=vocab_size, context=context, seed=seed)
    marker = folder / "corpus.json"
    if marker.exists():
        if json.loads(marker.read_text()) != key:
            raise ValueError(
                f"{folder} was made from another corpus or with other settings; "
                "choose another --work-dir or start over with --no-resume"
            )
        return _load(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is None:
        tokenizer = train_tokenizer(
            (file.text for file in split.train), vocab_size=vocab_size, context=context
        )
    tokenizer.save_pretrained(folder)
    parts = {
        "train": split.train,
        "library": _library(split.train),
        "held_out": _library(split.held_out),
    }
    for name, files in parts.items():
        tokens = encode_files(shuffled(files, seed=seed), tokenizer)
        np.save(folder / f"{name}.npy", tokens)
        logger.info("%s: %d files, %d tokens", name, len(files), len(tokens))
    marker.write_text(json.dumps(key))
    return _load(folder)


def _load(folder: Path) -> Prepared:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    arrays = [np.load(folder / f"{name}.npy") for name in ("train", "library", "held_out")]
    return Prepared(tokenizer, *arrays)


def _library(files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    return [file for file in files if not file.is_test] or files


def _fingerprint(split: Split, *, vocab_size: int, context: int, seed: int) -> dict[str, int]:
    return {
        "vocab_size": vocab_size,
        "context": context,
        "seed": seed,
        "train_files": len(split.train),
        "train_characters": sum(len(file.text) for file in split.train),
        "held_out_files": len(split.held_out),
        "held_out_characters": sum(len(file.text) for file in split.held_out),
    }
