"""A Katz-backoff trigram over tokens: trained once, updated by each request's own text.

Katz (1987), "Estimation of probabilities from sparse data": counts up to 5 are discounted after
Good and Turing, and what that frees is given to the shorter context. Of each context only the
likeliest few successors are kept: the model proposes, it need not know the tail.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from functools import lru_cache
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from engine.errors import UserError
from engine.paths import cache_folder, data_folder

#: successors kept of each context
KEPT = 8
#: counts above this are trusted as they are
TRUSTED = 5
#: occurrences of a context in the request's own text that weigh as much as the trained counts
OWN_WEIGHT = 1.0
FOLDER, WEIGHTS, CARD = "ngram", "ngram.safetensors", "ngram.json"


class Level(NamedTuple):
    """Contexts of one length with their likeliest successors, best first."""

    keys_C: np.ndarray  # int64, ascending
    start_C: np.ndarray  # int64, C + 1 offsets into the successors
    token_S: np.ndarray  # int32
    prob_S: np.ndarray  # float32, discounted
    backoff_C: np.ndarray  # float32, weight of the shorter context's probability

    def find(self, key: int) -> int:
        """The context's number, -1 where it was never seen."""
        at = int(self.keys_C.searchsorted(key))
        return at if at < len(self.keys_C) and self.keys_C[at] == key else -1

    def successors(self, context: int) -> tuple[list[int], list[float]]:
        """Tokens and probabilities of a context."""
        part = slice(int(self.start_C[context]), int(self.start_C[context + 1]))
        return self.token_S[part].tolist(), self.prob_S[part].tolist()


class Ngram:
    """Trigrams over bigrams over single tokens. Immutable; see `OwnText` for updates."""

    def __init__(self, trigrams: Level, bigrams: Level, vocab_size: int) -> None:
        self.trigrams, self.bigrams, self.vocab_size = trigrams, bigrams, vocab_size

    def next(self, before: int, last: int, count: int) -> dict[int, float]:
        """Up to `count` likely tokens after the two given ones, best first."""
        found: dict[int, float] = {}
        weight = 1.0
        for level, key in ((self.trigrams, before * self.vocab_size + last), (self.bigrams, last)):
            context = level.find(key)
            if context < 0:
                continue
            for token, prob in zip(*level.successors(context), strict=True):
                found.setdefault(token, weight * prob)
            weight *= float(level.backoff_C[context])
        return dict(sorted(found.items(), key=lambda item: -item[1])[:count])

    def save(self, folder: Path, **card: Any) -> None:
        """Write weights and a card that says how it was made."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{name}.{field}": np.ascontiguousarray(values)
            for name, level in (("trigrams", self.trigrams), ("bigrams", self.bigrams))
            for field, values in level._asdict().items()
        }
        save_file(arrays, folder / WEIGHTS)
        (folder / CARD).write_text(json.dumps({"vocab_size": self.vocab_size} | card, indent=1))


@lru_cache(maxsize=4)
def load(folder: Path) -> Ngram:
    """Raises UserError where the folder holds no readable model."""
    try:
        arrays = load_file(folder / WEIGHTS)
        size = int(json.loads((folder / CARD).read_text())["vocab_size"])
        levels = [
            Level(*(arrays[f"{name}.{field}"] for field in Level._fields))
            for name in ("trigrams", "bigrams")
        ]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no n-gram model ({error}); make one with `draftree train ngram`."
        ) from None
    return Ngram(levels[0], levels[1], size)


def count(tokens_T: np.ndarray, vocab_size: int) -> Ngram:
    """Train on tokens (T >= 3)."""
    tokens = np.asarray(tokens_T, np.int64)
    bigrams = _level(tokens[:-1], tokens[1:], vocab_size, below=None)
    pairs = tokens[:-2] * vocab_size + tokens[1:-1]
    trigrams = _level(pairs, tokens[2:], vocab_size, below=bigrams)
    return Ngram(trigrams, bigrams, vocab_size)


def empty(vocab_size: int) -> Ngram:
    """A model that knows nothing: guesses come from the request's own text alone."""
    nothing = Level(
        np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int32),
        np.empty(0, np.float32), np.empty(0, np.float32),
    )  # fmt: skip
    return Ngram(nothing, nothing, vocab_size)


def vocabulary_hash(tokenizer: Any) -> str:
    """What a token id means, as 16 hex digits: n-grams serve any model of the same vocabulary."""
    text = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_folder(tokenizer: Any, *, beside: list[str]) -> Path | None:
    """A trained model for this vocabulary: beside the given models, embedded, or in the cache."""
    wanted = vocabulary_hash(tokenizer)
    places = [Path(place) / FOLDER for place in beside]
    places += sorted((data_folder() / "models").glob(f"*/{FOLDER}"))
    places.append(cache_folder() / FOLDER / wanted)
    for place in places:
        try:
            if json.loads((place / CARD).read_text()).get("vocabulary") == wanted:
                return place
        except (OSError, ValueError):
            continue
    return None


class OwnText:
    """A trained model together with what one request's text has shown so far."""

    def __init__(self, trained: Ngram) -> None:
        self._trained = trained
        self._seen: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self._known = 0

    def extend(self, tokens: list[int]) -> None:
        """Take in what is new at the end of the request's tokens."""
        for at in range(max(self._known, 1), len(tokens)):
            self._seen[(tokens[at - 1],)][tokens[at]] += 1
            if at > 1:
                self._seen[tokens[at - 2], tokens[at - 1]][tokens[at]] += 1
        self._known = len(tokens)

    def next(self, before: int, last: int, count: int) -> list[tuple[int, float]]:
        """Up to `count` likely tokens with their probabilities, best first.

        The request's own relative frequencies weigh n / (n + 1) where its context occurred n
        times; the longer of its contexts counts.
        """
        found = self._trained.next(before, last, KEPT)
        own = self._seen.get((before, last)) or self._seen.get((last,))
        if own:
            total = own.total()
            weight = total / (total + OWN_WEIGHT) if found else 1.0
            found = {token: (1.0 - weight) * prob for token, prob in found.items()}
            for token, times in own.most_common(KEPT):
                found[token] = found.get(token, 0.0) + weight * times / total
        return sorted(found.items(), key=lambda item: -item[1])[:count]


class Guess(NamedTuple):
    """A guessed node: its parent's place among the guesses (-1: what they follow), token, p."""

    parent: int
    token: int
    prob: float


def guesses(
    text: OwnText,
    before: int,
    last: int,
    *,
    most: int,
    depth: int,
    top_k: int,
    min_prob: float,
) -> list[Guess]:
    """The likeliest continuations of two tokens as a tree, best first by path probability."""
    found: list[Guess] = []
    levels: list[int] = []
    order = itertools.count()
    # path probability (negative), order of arrival, parent, token before, token, its own p
    heap: list[tuple[float, int, int, int, int, float]] = []

    def push(path: float, parent: int, before: int, last: int) -> None:
        for token, prob in text.next(before, last, top_k):
            if prob > 0.0 and path * prob >= min_prob:
                heappush(heap, (-path * prob, next(order), parent, last, token, prob))

    if depth > 0:
        push(1.0, -1, before, last)
    while heap and len(found) < most:
        path, _, parent, before, token, prob = heappop(heap)
        levels.append(1 if parent < 0 else levels[parent] + 1)
        found.append(Guess(parent, token, prob))
        if levels[-1] < depth:
            push(-path, len(found) - 1, before, token)
    return found


def _level(
    contexts_T: np.ndarray, tokens_T: np.ndarray, vocab_size: int, *, below: Level | None
) -> Level:
    """Count, discount, weigh the backoff, keep the best of each context."""
    pairs, counts = np.unique(
        np.stack([contexts_T, tokens_T]), axis=1, return_counts=True
    )  # sorted by context, then token
    contexts, tokens = pairs
    keys, first, sizes = np.unique(contexts, return_index=True, return_counts=True)
    owner = np.repeat(np.arange(len(keys)), sizes)
    totals = np.add.reduceat(counts, first)
    probs = discounts(counts)[np.minimum(counts, TRUSTED + 1)] * counts / totals[owner]
    left = 1.0 - np.add.reduceat(probs, first)
    if below is None:
        lower = np.zeros(len(tokens))
    else:
        lower = _probabilities(below, keys[owner] % vocab_size, tokens)
    unseen = 1.0 - np.add.reduceat(lower, first)
    backoff = np.where(unseen > 1e-6, left / np.maximum(unseen, 1e-6), 0.0)
    order = np.lexsort((tokens, -probs, owner))
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    kept = order[rank < KEPT]
    start = np.concatenate([[0], np.cumsum(np.minimum(sizes, KEPT))])
    return Level(
        keys, start, tokens[kept].astype(np.int32), probs[kept].astype(np.float32),
        np.clip(backoff, 0.0, 1.0).astype(np.float32),
    )  # fmt: skip


def discounts(counts: np.ndarray) -> np.ndarray:
    """Katz's factor for counts 0..TRUSTED, then 1; absolute discounting where counts are odd."""
    how_many = np.bincount(np.minimum(counts, TRUSTED + 1), minlength=TRUSTED + 2).astype(float)
    how_many[TRUSTED + 1] = (counts == TRUSTED + 1).sum()
    factor = np.ones(TRUSTED + 2)
    rest = (TRUSTED + 1) * how_many[TRUSTED + 1] / max(how_many[1], 1.0)
    for r in range(1, TRUSTED + 1):
        turing = (r + 1) * how_many[r + 1] / max(r * how_many[r], 1.0)
        value = (turing - rest) / (1.0 - rest) if rest < 1.0 else 0.0
        factor[r] = value if 0.0 < value < 1.0 else (r - 0.5) / r
    return factor


def _probabilities(level: Level, keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Probability of each token after each context of a level, 0 where it is not kept."""
    context = level.keys_C.searchsorted(keys)
    found = np.zeros(len(keys))
    for at in range(KEPT):
        place = level.start_C[context] + at
        inside = place < level.start_C[context + 1]
        place = np.minimum(place, len(level.token_S) - 1)
        hit = inside & (level.token_S[place] == tokens)
        found[hit] = level.prob_S[place[hit]]
    return found
