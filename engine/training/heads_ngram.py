"""What an n-gram guesses on the same held-out text: the least that a trained head must beat."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.ngram import count
from engine.training.batches import TokenArray
from engine.training.heads import Hits
from engine.training.heads_data import windows

_MOST_TRAINED = 3_000_000
_RANKS = 5


def ngram_accuracy(
    train: TokenArray,
    held_out: TokenArray,
    *,
    vocab_size: int,
    offsets: Iterable[int],
    length: int,
    most: int,
    sees_next: bool,
) -> dict[int, Hits]:
    """Hits of a Katz trigram by offset, on the very rows that heads are looked at on.

    Offsets are those of heads: +1 is the target's own token. It `sees_next` where the head does;
    what lies between it and the guess, it guesses too, best first.
    """
    model = count(train[:_MOST_TRAINED], vocab_size)
    rows = windows(held_out, length=length, most=most).numpy()
    offsets = sorted(offsets)
    hits = {offset: np.zeros(_RANKS, np.int64) for offset in offsets}
    seen = dict.fromkeys(offsets, 0)
    known: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        for at in range(1, len(row) - 2):
            before, last = (at, at + 1) if sees_next else (at - 1, at)
            pair = int(row[before]), int(row[last])
            for offset in range(2 if sees_next else 1, offsets[-1] + 1):
                if at + offset >= len(row):
                    break
                if pair not in known:
                    known[pair] = list(model.next(*pair, _RANKS))
                guesses = known[pair]
                if offset in hits:
                    seen[offset] += 1
                    for rank, token in enumerate(guesses):
                        hits[offset][rank] += token == row[at + offset]
                if not guesses:
                    break
                pair = pair[1], guesses[0]
    return {offset: Hits(tuple(hits[offset].tolist()), seen[offset]) for offset in offsets}
