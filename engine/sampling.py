"""Warping of the target's distribution, and randomness keyed by (seed, request, position)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature 0 is greedy. `top_k` 0 and `top_p` 1 switch those cuts off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < 100.0:
            raise UserError(f"temperature is {self.temperature}; use 0 (greedy) up to 100.")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; use 0 (off) or a positive count.")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}; use a value above 0 and up to 1 (off).")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def is_cut(self) -> bool:
        """Whether top-k or top-p takes tokens away."""
        return self.top_k > 0 or self.top_p < 1.0


class Stream(IntEnum):
    """Independent streams of randomness at one position."""

    TARGET = 0  # Gumbel noise of rule 1, shared with COUPLED drafting by design
    DRAFT = 1  # draws of SAMPLED children
    ACCEPT = 2  # acceptance decisions of rules 2 and 3


def generator(
    sampling: Sampling, *, request: int, position: int, stream: Stream, root: int = 0, node: int = 0
) -> np.random.Generator:
    """Counter-based generator: the same arguments give the same numbers, in any order.

    `root`, the position of the tree, keeps draws of one step from coming again in a later one:
    a tree's shape may depend on draws below what was emitted.
    """
    key = np.array([sampling.seed & (2**64 - 1), request], dtype=np.uint64)
    counter = np.array([0, node + (root << 32), position, int(stream)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def gumbel(sampling: Sampling, *, request: int, position: int, vocab_size: int) -> np.ndarray:
    """Noise g_V for the token at `position`; the target emits argmax(log p + g)."""
    draws = generator(sampling, request=request, position=position, stream=Stream.TARGET)
    return -np.log(draws.standard_exponential(vocab_size))


def warp(logits_NV: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Log-probabilities after temperature, then top-k, then top-p; cut tokens get -inf.

    float64 inside: at the top-p cut two orders of summation must agree.
    The token that crosses the top-p mass stays in (as in transformers).
    """
    if sampling.greedy:
        raise ValueError("a greedy distribution has no log-probabilities to sample from")
    scores = np.asarray(logits_NV, np.float64) / sampling.temperature
    vocab_size = scores.shape[-1]
    if 0 < sampling.top_k < vocab_size:
        kth = np.partition(scores, -sampling.top_k, axis=-1)[..., -sampling.top_k, None]
        scores = np.where(scores < kth, -np.inf, scores)
    scores = scores - scores.max(axis=-1, keepdims=True)
    probs = np.exp(scores)
    probs /= probs.sum(axis=-1, keepdims=True)
    if sampling.top_p < 1.0:
        order = np.argsort(-probs, axis=-1, kind="stable")
        mass_before = np.cumsum(np.take_along_axis(probs, order, -1), -1)
        mass_before -= np.take_along_axis(probs, order, -1)
        cut = np.zeros(probs.shape, bool)
        np.put_along_axis(cut, order, mass_before >= sampling.top_p, -1)
        probs = np.where(cut, 0.0, probs)
        probs /= probs.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log(probs)
